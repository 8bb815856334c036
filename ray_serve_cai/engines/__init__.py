"""Engine plugins: a protocol, a config builder, a deployment factory, a registry."""

import importlib
from typing import TYPE_CHECKING, Any

from ray_serve_cai.engines.base import (
    ConfigBuilderProtocol,
    DeploymentFactoryProtocol,
    EngineInfo,
    LLMEngineProtocol,
)
from ray_serve_cai.engines.registry import EngineRegistry, get_registry, register_engine

if TYPE_CHECKING:
    from ray_serve_cai.engines.config_builder import ConfigBuilder
    from ray_serve_cai.engines.engine_config import EngineConfig
    from ray_serve_cai.engines.sglang_config import SGLangConfigBuilder, SGLangDeploymentFactory
    from ray_serve_cai.engines.sglang_engine import SGLangEngine
    from ray_serve_cai.engines.vllm_config import (
        VLLMConfigBuilder,
        VLLMDeploymentFactory,
        build_vllm_engine_config,
        validate_vllm_config,
    )
    from ray_serve_cai.engines.vllm_engine import VLLMEngine, create_vllm_deployment

_LAZY = {
    "ConfigBuilder": "config_builder",
    "EngineConfig": "engine_config",
    "VLLMConfigBuilder": "vllm_config",
    "VLLMDeploymentFactory": "vllm_config",
    "build_vllm_engine_config": "vllm_config",
    "validate_vllm_config": "vllm_config",
    "VLLMEngine": "vllm_engine",
    "create_vllm_deployment": "vllm_engine",
    "SGLangConfigBuilder": "sglang_config",
    "SGLangDeploymentFactory": "sglang_config",
    "SGLangEngine": "sglang_engine",
}
"""Name -> module that is imported when the name is first asked for."""

__all__ = [
    "ConfigBuilder",
    "ConfigBuilderProtocol",
    "DeploymentFactoryProtocol",
    "EngineConfig",
    "EngineInfo",
    "EngineRegistry",
    "LLMEngineProtocol",
    "SGLangConfigBuilder",
    "SGLangDeploymentFactory",
    "SGLangEngine",
    "VLLMConfigBuilder",
    "VLLMDeploymentFactory",
    "VLLMEngine",
    "build_vllm_engine_config",
    "create_vllm_deployment",
    "get_registry",
    "register_engine",
    "validate_vllm_config",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
