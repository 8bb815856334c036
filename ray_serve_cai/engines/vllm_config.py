"""A user's model configuration -> arguments of vLLM's own server. Pure: imports no vLLM."""

from __future__ import annotations

from typing import Any

from ray_serve_cai.config import ModelConfig
from ray_serve_cai.engines.base import EngineConfig
from ray_serve_cai.errors import ConfigError

_OURS = {
    "host": "RSCAI_HOST",
    "port": "RSCAI_PORT",
    "uds": "RSCAI_PORT",
    "root_path": "the model's name",
    "nnodes": "tensor_parallel_size and the cluster's nodes",
    "node_rank": "tensor_parallel_size and the cluster's nodes",
    "master_addr": "tensor_parallel_size and the cluster's nodes",
    "master_port": "tensor_parallel_size and the cluster's nodes",
    "headless": "tensor_parallel_size and the cluster's nodes",
    "ssl_keyfile": "a TLS proxy before the front door",
    "ssl_certfile": "a TLS proxy before the front door",
}
"""Arguments of ``vllm serve`` that this project decides, and what decides them."""


class VLLMConfigBuilder:
    """`ConfigBuilderProtocol` for vLLM."""

    def get_default_config(self) -> dict[str, Any]:
        """Nothing beyond vLLM's own defaults: what a user knows of ``vllm serve`` holds here."""
        return {}

    def validate_config(self, config: ModelConfig) -> None:
        """Refuse arguments that belong to the launcher.

        Raises:
            ConfigError: naming the argument and what decides it.
        """
        for argument in config.engine_args:
            if argument in _OURS:
                raise ConfigError(
                    f"models[{config.name}].engine_args.{argument}: {config.engine_args[argument]!r} cannot be set here; "
                    f"it follows from {_OURS[argument]}."
                )

    def build_config(self, config: ModelConfig, *, model: str, device: str) -> EngineConfig:
        """Complete the configuration; on CPUs without compilation, in bfloat16, which every CPU build supports.

        One rank runs in the engine's own process; inside a Ray actor vLLM would otherwise pick its Ray executor for several.

        Raises:
            ConfigError: as `validate_config`.
        """
        self.validate_config(config)
        cpu = {"enforce_eager": True, "dtype": "bfloat16"} if device == "cpu" else {}
        given = {"tensor_parallel_size": config.tensor_parallel_size, "pipeline_parallel_size": config.pipeline_parallel_size}
        executor = {"distributed_executor_backend": "mp" if config.ranks > 1 else "uni"}
        return EngineConfig(
            engine="vllm",
            name=config.name,
            model=model,
            arguments=self.get_default_config() | cpu | given | executor | config.engine_args,
            ranks=config.ranks,
            gpus=0 if device == "cpu" else config.ranks,
            cpus=config.cpus_per_replica,
            replicas=config.replicas,
        )
