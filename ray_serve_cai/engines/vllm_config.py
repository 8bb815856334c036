"""A user configuration -> arguments of vLLM's own server, and their deployment. Pure: imports neither vLLM nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_serve_cai.engines.config_builder import ConfigBuilder
from ray_serve_cai.engines.deployment import EngineDeploymentFactory
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.user_config import UserConfig

_OURS = {
    "host": "RSCAI_HOST",
    "port": "RSCAI_PORT, or port in the Python API",
    "uds": "RSCAI_PORT",
    "root_path": "the model's name",
    "nnodes": "tensor_parallel_size and the cluster's nodes",
    "node_rank": "tensor_parallel_size and the cluster's nodes",
    "master_addr": "tensor_parallel_size and the cluster's nodes",
    "master_port": "tensor_parallel_size and the cluster's nodes",
    "headless": "tensor_parallel_size and the cluster's nodes",
    "ssl_keyfile": "a TLS proxy before the front door",
    "ssl_certfile": "a TLS proxy before the front door",
    "hf_token": "HF_TOKEN, or hf_token in the Python API",
}
"""Arguments of ``vllm serve`` that this project decides, and what decides them."""


class VLLMConfigBuilder(ConfigBuilder):
    """`ConfigBuilderProtocol` for vLLM: arguments of ``vllm serve``, by their Python names."""

    decided = _OURS

    def arguments(self, config: UserConfig) -> dict[str, Any]:
        """On CPUs nothing is compiled, and ``auto`` is bfloat16, which every CPU build supports.

        One rank runs in the engine's own process; inside a Ray actor vLLM would otherwise pick its Ray executor for several.
        """
        optional = {
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "max_model_len": config.max_model_len,
            "trust_remote_code": config.trust_remote_code or None,
            "download_dir": config.download_dir,
            "enable_prefix_caching": config.enable_prefix_caching,
            "disable_log_stats": config.disable_log_stats,
            "chat_template": config.custom_chat_template,
        }
        return {
            "tensor_parallel_size": config.tensor_parallel_size,
            "pipeline_parallel_size": config.pipeline_parallel_size,
            "distributed_executor_backend": "mp" if config.ranks > 1 else "uni",
            "dtype": "bfloat16" if config.use_cpu and config.dtype == "auto" else config.dtype,
            "load_format": config.load_format,
            **({"enforce_eager": True} if config.use_cpu else {}),
            **{key: value for key, value in optional.items() if value is not None},
            **config.engine_args,
        }


class VLLMDeploymentFactory(EngineDeploymentFactory):
    """`DeploymentFactoryProtocol` for vLLM."""

    info = VLLM


def build_vllm_engine_config(user_config: Mapping[str, Any]) -> dict[str, Any]:
    """`VLLMConfigBuilder.build_config`."""
    return VLLMConfigBuilder().build_config(user_config)


def validate_vllm_config(user_config: Mapping[str, Any]) -> tuple[bool, str | None]:
    """`VLLMConfigBuilder.validate_config`."""
    return VLLMConfigBuilder().validate_config(user_config)
