"""Engine plugins: a protocol, a config builder, a deployment factory, a registry."""

from ray_serve_cai.engines.base import (
    ConfigBuilderProtocol,
    DeploymentFactoryProtocol,
    EngineInfo,
    LLMEngineProtocol,
)
from ray_serve_cai.engines.registry import EngineRegistry, get_registry, register_engine

__all__ = [
    "ConfigBuilderProtocol",
    "DeploymentFactoryProtocol",
    "EngineInfo",
    "EngineRegistry",
    "LLMEngineProtocol",
    "get_registry",
    "register_engine",
]
