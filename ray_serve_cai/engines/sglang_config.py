"""A user configuration -> SGLang's server arguments, and their deployment. Pure: imports neither SGLang nor Ray.

Names are those of ``sglang.srt.server_args.ServerArgs``, read in SGLang 0.5.23.
"""

from __future__ import annotations

from typing import Any

from ray_serve_cai.engines import model_config, user_config
from ray_serve_cai.engines.config_builder import ConfigBuilder
from ray_serve_cai.engines.deployment import EngineDeploymentFactory
from ray_serve_cai.engines.registry import SGLANG
from ray_serve_cai.engines.user_config import UserConfig
from ray_serve_cai.errors import ConfigError

_CLUSTER = "nodes_per_replica"
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
_SHARED = ("max_model_len", "gpu_memory_utilization", "enable_prefix_caching", "disable_log_stats")
"""Keys of every engine that SGLang's own server calls otherwise."""
CPU_TOKENS = 4096
"""Tokens of all running requests together that the cache has room for, on CPUs."""


class SGLangConfigBuilder(ConfigBuilder):
    """`ConfigBuilderProtocol` for SGLang: fields of ``ServerArgs``."""

    decided = _OURS

    def arguments(self, config: UserConfig) -> dict[str, Any]:
        """``engine_args`` may also hold keys that all engines share, by which vLLM calls its arguments too.

        Raises:
            ConfigError: LoRA adapters on CPUs; pipeline stages of a Llama with tied embeddings.
        """
        config = _own_names(config)
        document = model_config.read(config.model_source) or {}
        if config.pipeline_parallel_size > 1 and document.get("model_type") == "llama" and document.get("tie_word_embeddings"):
            raise ConfigError(
                f"pipeline_parallel_size: {config.pipeline_parallel_size} stages of a Llama with tied embeddings are beyond SGLang, which "
                "gives the last one no embedding to make its output of; use tensor_parallel_size, or vLLM."
            )
        if config.use_cpu and config.engine_args.keys() & {"enable_lora", "lora_paths"}:
            raise ConfigError(
                "engine_args.enable_lora: SGLang keeps LoRA adapters in pinned memory, which needs a GPU; serve them with vLLM here."
            )
        optional = {
            "mem_fraction_static": config.gpu_memory_utilization,
            "context_length": config.max_model_len,
            "trust_remote_code": config.trust_remote_code or None,
            "download_dir": config.download_dir,
            "disable_radix_cache": None if config.enable_prefix_caching is None else not config.enable_prefix_caching,
            "log_level": "warning" if config.disable_log_stats else None,
            "chat_template": config.custom_chat_template,
        }
        return {
            "tp_size": config.tensor_parallel_size,
            "pp_size": config.pipeline_parallel_size,
            "dtype": "float32" if config.use_cpu and config.dtype == "auto" else config.dtype,
            "load_format": config.load_format,
            **(_on_cpus(config) if config.use_cpu else {}),
            **{key: value for key, value in optional.items() if value is not None},
            **config.engine_args,
        }


def _own_names(config: UserConfig) -> UserConfig:
    """The configuration with shared keys taken out of its ``engine_args``."""
    shared = {key: config.engine_args[key] for key in _SHARED if key in config.engine_args}
    if not shared:
        return config
    checked = user_config.parse({"model": config.model, **shared})
    rest = {key: value for key, value in config.engine_args.items() if key not in shared}
    return config.model_copy(update={"engine_args": rest} | {key: getattr(checked, key) for key in shared})


def _on_cpus(config: UserConfig) -> dict[str, Any]:
    """PyTorch's own operators, which run on any CPU, in single precision; a scheduler that sleeps when it has nothing to do.

    The limits keep the start short: SGLang otherwise sizes its pools for the machine's whole memory, and computes them.
    """
    return {
        "device": "cpu",
        "attention_backend": "torch_native",
        "disable_overlap_schedule": True,
        "sleep_on_idle": True,
        "max_total_tokens": max(CPU_TOKENS, config.max_model_len or 0),
        "max_running_requests": 8,
    }


class SGLangDeploymentFactory(EngineDeploymentFactory):
    """`DeploymentFactoryProtocol` for SGLang."""

    info = SGLANG
    tensor_parallel = "tp_size"
    pipeline_parallel = "pp_size"
