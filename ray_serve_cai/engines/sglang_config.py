"""A user configuration -> SGLang's server arguments, and their deployment. Pure: imports neither SGLang nor Ray.

Names are those of ``sglang.srt.server_args.ServerArgs``, read in SGLang 0.5.23.
"""

from __future__ import annotations

from typing import Any

from ray_serve_cai.engines.config_builder import ConfigBuilder
from ray_serve_cai.engines.deployment import EngineDeploymentFactory
from ray_serve_cai.engines.registry import SGLANG
from ray_serve_cai.engines.user_config import UserConfig

_CLUSTER = "tensor_parallel_size and the cluster's nodes"
_OURS = {
    "host": "RSCAI_HOST",
    "port": "RSCAI_PORT, or port in the Python API",
    "model_path": "the model's source",
    "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "nnodes": _CLUSTER,
    "node_rank": _CLUSTER,
    "dist_init_addr": _CLUSTER,
    "ssl_keyfile": "a TLS proxy before the front door",
    "ssl_certfile": "a TLS proxy before the front door",
    "hf_token": "HF_TOKEN, or hf_token in the Python API",
}
"""Arguments of SGLang's server that this project decides, and what decides them."""


class SGLangConfigBuilder(ConfigBuilder):
    """`ConfigBuilderProtocol` for SGLang: fields of ``ServerArgs``."""

    decided = _OURS

    def arguments(self, config: UserConfig) -> dict[str, Any]:
        """On CPUs ``auto`` is bfloat16."""
        optional = {
            "mem_fraction_static": config.gpu_memory_utilization,
            "context_length": config.max_model_len,
            "trust_remote_code": config.trust_remote_code or None,
            "download_dir": config.download_dir,
            "disable_radix_cache": None if config.enable_prefix_caching is None else not config.enable_prefix_caching,
            "log_level": "warning" if config.disable_log_stats else None,
            "chat_template": config.custom_chat_template,
            "device": "cpu" if config.use_cpu else None,
        }
        return {
            "tp_size": config.tensor_parallel_size,
            "pp_size": config.pipeline_parallel_size,
            "dtype": "bfloat16" if config.use_cpu and config.dtype == "auto" else config.dtype,
            "load_format": config.load_format,
            **{key: value for key, value in optional.items() if value is not None},
            **config.engine_args,
        }


class SGLangDeploymentFactory(EngineDeploymentFactory):
    """`DeploymentFactoryProtocol` for SGLang."""

    info = SGLANG
    tensor_parallel = "tp_size"
    pipeline_parallel = "pp_size"
