"""What one replica is started with: plain data that crosses process borders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.errors import ConfigError, EngineError, one_line


class Seat(BaseModel):
    """A node's place in a replica that spans several.

    Attributes:
        node: 0 for the one with the replica's own process, which the others look for.
        address: IP address of node 0.
        port: where its first rank waits for the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: int
    address: str
    port: int


class EngineConfig(BaseModel):
    """One model, ready to be deployed.

    Attributes:
        info: the engine.
        name: served model name.
        model: local path or Hugging Face id, as the engine takes it.
        arguments: the engine's own arguments, as its config builder made them, without model and name.
        ranks: processes of one replica.
        nodes: nodes that one replica spans, each with as many of its ranks.
        gpus: GPUs of one replica; 0 on CPUs.
        cpus: CPUs that one replica reserves on each of its nodes.
        replicas: copies of the model.
        max_ongoing_requests: requests one replica works on at a time.
        drain_s: seconds a leaving replica may take to finish its streams.
        labelled: whether the cluster's nodes say by labels which engines they have, as nodes of our images do.
        seat: this node's place, in a replica that spans several; set when it starts.
        hf_token: token for the hub, given to the engine's process alone; never part of a dump.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    info: EngineInfo
    name: str
    model: str
    arguments: dict[str, Any]
    ranks: int = 1
    nodes: int = 1
    gpus: int = 0
    cpus: float = 1.0
    replicas: int = 1
    max_ongoing_requests: int = 1000
    drain_s: int = 60
    labelled: bool = True
    seat: Seat | None = None
    hf_token: SecretStr | None = Field(None, exclude=True)

    @property
    def engine(self) -> str:
        """Registered name of the engine."""
        return self.info.name


def of_arguments(info: EngineInfo, arguments: Mapping[str, Any], *, ranks: int, use_cpu: bool, **more: Any) -> EngineConfig:
    """The engine configuration of arguments as the engine's config builder returns them; ``more`` are further fields.

    Raises:
        ConfigError: the arguments name no model, or no name for it.
    """
    rest = dict(arguments)
    model = rest.pop("model", None)
    if not isinstance(model, str) or not model:
        raise ConfigError(f"model: {model!r} in the arguments of engine {info.name} is no model; name one, for example demo.")
    name = rest.pop("served_model_name", model)
    if not isinstance(name, str):
        raise ConfigError(f"served_model_name: {name!r} in the arguments of engine {info.name} is no name; use one text.")
    token = rest.pop("hf_token", None)
    return EngineConfig(
        info=info,
        name=name,
        model=model,
        arguments=rest,
        ranks=ranks,
        gpus=0 if use_cpu else ranks,
        hf_token=SecretStr(token) if isinstance(token, str) else token,
        **more,
    )


def start_error(product: str, config: EngineConfig, error: Exception) -> ConfigError | EngineError:
    """An engine's own exception, as it started, in a typed line; ``product`` is the engine as people write it."""
    kind = ConfigError if isinstance(error, ValueError) else EngineError
    return kind(f"{product} did not start model {config.name!r} from {config.model}: {one_line(error)}")
