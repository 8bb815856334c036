"""A user configuration -> arguments of vLLM's own server, and their deployment. Pure: imports neither vLLM nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_serve_cai.engines import data_parallel
from ray_serve_cai.engines.config_builder import ConfigBuilder
from ray_serve_cai.engines.deployment import EngineDeploymentFactory
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.user_config import UserConfig
from ray_serve_cai.errors import ConfigError

_OURS = {
    "host": "RSCAI_HOST",
    "port": "RSCAI_PORT, or port in the Python API",
    "uds": "RSCAI_PORT",
    "root_path": "the model's name",
    "nnodes": "nodes_per_replica",
    "node_rank": "nodes_per_replica",
    "master_addr": "nodes_per_replica",
    "master_port": "nodes_per_replica",
    "headless": "nodes_per_replica",
    **dict.fromkeys(
        (
            "data_parallel_rank",
            "data_parallel_start_rank",
            "data_parallel_size_local",
            "data_parallel_address",
            "data_parallel_rpc_port",
            "data_parallel_backend",
            "data_parallel_hybrid_lb",
            "data_parallel_external_lb",
            "data_parallel_multi_port_external_lb",
            "api_server_count",
        ),
        "data_parallel_size and replicas",
    ),
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

        Raises:
            ConfigError: a mixture of experts over several data-parallel ranks, on CPUs.
        """
        if config.use_cpu and data_parallel.size(config.engine_args) > 1 and data_parallel.experts(config.model_source):
            raise ConfigError(
                f"engine_args.data_parallel_size: {data_parallel.size(config.engine_args)} ranks of a mixture of experts exchange what "
                "vLLM's CPU build cannot (all_gatherv); use replicas here."
            )
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
            **(_on_cpus(config) if config.use_cpu else {}),
            **{key: value for key, value in optional.items() if value is not None},
            **config.engine_args,
        }


def _on_cpus(config: UserConfig) -> dict[str, Any]:
    """Nothing is compiled. A pipeline's later stages need vLLM's warm-up, which makes their buffers and does not run with enforce_eager."""
    if config.pipeline_parallel_size > 1:
        return {"enforce_eager": False, "compilation_config": {"mode": 2, "backend": "eager"}}
    return {"enforce_eager": True}


class VLLMDeploymentFactory(EngineDeploymentFactory):
    """`DeploymentFactoryProtocol` for vLLM."""

    info = VLLM


def build_vllm_engine_config(user_config: Mapping[str, Any]) -> dict[str, Any]:
    """`VLLMConfigBuilder.build_config`."""
    return VLLMConfigBuilder().build_config(user_config)


def validate_vllm_config(user_config: Mapping[str, Any]) -> tuple[bool, str | None]:
    """`VLLMConfigBuilder.validate_config`."""
    return VLLMConfigBuilder().validate_config(user_config)
