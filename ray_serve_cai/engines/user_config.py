"""A model as callers of the Python API describe it: one flat mapping, the same for every engine.

The keys are those that callers of ``RayBackend.start_model`` use; a YAML file's model becomes such a mapping too, so every
config builder reads one thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator

from ray_serve_cai.config import EngineArguments, ModelConfig, Strict, explain
from ray_serve_cai.engines.sealed import is_secret
from ray_serve_cai.errors import ConfigError

Text = Annotated[str, Field(min_length=1)]


class UserConfig(Strict):
    """One model. A value that is None or an empty text counts as not given."""

    model: Text = Field(description="Name in the API, and where the weights are unless `model_source` says so. Default: `model_source`.")
    model_source: Text = Field(description="A name under /opt/ray-serve-cai/models, a path, or a Hugging Face id. Default: `model`.")
    engine: Text | None = Field(None, description="Registered engine name. Default: the backend's, then the registry's.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8000, description="Port of the HTTP API.")
    tensor_parallel_size: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="Ranks that share each layer.")
    pipeline_parallel_size: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="Ranks that share the list of layers.")
    num_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="Copies of the model.")
    use_cpu: bool | None = Field(None, description="Run on CPUs. Default: true where the cluster has no GPU.")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = Field(
        "auto", description="Type of weights and activations; `auto` on CPUs is bfloat16 with vLLM and float32 with SGLang."
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Part of a GPU's memory that the engine may take. Default: the engine's."
    )
    max_model_len: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Prompt and answer together, in tokens. Default: the model's."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings.")
    download_dir: Text | None = Field(None, description="Where downloaded weights are kept. Default: the hub's cache.")
    load_format: Text = Field("auto", description="Format of the weights.")
    hf_token: SecretStr | None = Field(None, description="Token for gated models; only the engine's process gets it.")
    enable_prefix_caching: bool | None = Field(None, description="Reuse what equal beginnings computed. Default: the engine's.")
    disable_log_stats: bool | None = Field(None, description="No statistics in the engine's log. Default: the engine's.")
    custom_chat_template: Text | None = Field(None, description="A Jinja template, or its path. Default: the model's.")
    engine_args: EngineArguments = Field(default_factory=dict, description="Any other argument of the engine.")

    @model_validator(mode="before")
    @classmethod
    def _name_and_source(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        given = {str(key): value for key, value in data.items() if value is not None and value != ""}
        for one, other in (("model", "model_source"), ("model_source", "model")):
            if other in given:
                given.setdefault(one, given[other])
        return given

    @property
    def ranks(self) -> int:
        """Processes that one replica consists of."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def parse(user_config: Mapping[str, Any]) -> UserConfig:
    """Validate a user configuration.

    Raises:
        ConfigError: the message names each key, its value and the fix; it never holds ``hf_token``.
    """
    try:
        return UserConfig.model_validate(user_config)
    except ValidationError as error:
        raise ConfigError("; ".join(dict.fromkeys(_explain(item) for item in error.errors()))) from None


def _explain(item: Any) -> str:
    if item["type"] == "missing":
        return "model: missing; name one, for example demo or Qwen/Qwen3-0.6B."
    if not item["loc"]:
        return f"the configuration is {type(item['input']).__name__}; use a mapping, for example {{'model': 'demo'}}."
    if item["loc"][:1] == ("hf_token",):
        return f"hf_token: {item['msg']}."
    return explain(item, UserConfig.model_fields)


def of_model(model: ModelConfig, source: str, *, use_cpu: bool) -> dict[str, Any]:
    """The user configuration of a YAML file's model; ``source`` is its resolved path or id."""
    return {
        "model": model.name,
        "model_source": source,
        "engine": model.engine,
        "tensor_parallel_size": model.tensor_parallel_size,
        "pipeline_parallel_size": model.pipeline_parallel_size,
        "num_replicas": model.replicas,
        "use_cpu": use_cpu,
        "engine_args": model.engine_args,
    }


def defaults() -> dict[str, Any]:
    """The keys that have a default of their own, with it."""
    return {
        name: field.default
        for name, field in UserConfig.model_fields.items()
        if not field.is_required() and field.default_factory is None and field.default is not None
    }


def validate(user_config: Mapping[str, Any], decided: Mapping[str, str]) -> UserConfig:
    """Validate, and refuse engine arguments that this project decides; ``decided`` names what decides each.

    Raises:
        ConfigError: as `parse`, or naming the argument and what decides it.
    """
    config = parse(user_config)
    for argument, value in config.engine_args.items():
        if argument in decided:
            shown = "its value" if is_secret(argument) else repr(value)
            raise ConfigError(f"engine_args.{argument}: {shown} cannot be set here; it follows from {decided[argument]}.")
    return config
