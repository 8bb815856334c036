"""What one replica is started with: plain data that crosses process borders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ray_serve_cai.config import AutoscalingConfig
from ray_serve_cai.engines import data_parallel
from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.errors import ConfigError, EngineError, counted, one_line

USUAL_TARGET = 64
"""Requests per copy that autoscaling aims at, where nobody says it."""
DEPLOYMENT = "engine"
"""Serve's name for the one deployment of a model's application, as our factory makes it."""


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


class Limits(BaseModel):
    """What a replica may be told anew while it runs.

    Attributes:
        max_concurrent: requests that its engine gets at a time.
        max_queued: further requests that wait; beyond them 503 is answered.
        alone: whether no other replica of the model is meant to be, so that a request may change this one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_concurrent: int = 1024
    max_queued: int = 1024
    alone: bool = True


LIGHT = {"replicas", "autoscaling", "max_concurrent", "max_queued", "drain_s", "surge"}
"""Fields of an `EngineConfig` that Serve changes without starting a replica anew."""


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
        replicas: copies of the model; with autoscaling the smallest number.
        autoscaling: how the number of copies follows the load; None where it is fixed.
        max_concurrent: requests that one replica's engine gets at a time.
        max_queued: further requests that wait in a replica; beyond them 503 is answered.
        drain_s: seconds a leaving replica may take to finish its streams.
        surge: new replicas, as a percentage of all, that an update starts before it ends old ones; 0 ends one first.
        generation: grows when all replicas are to start anew for another reason than their configuration.
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
    autoscaling: AutoscalingConfig | None = None
    max_concurrent: int = 1024
    max_queued: int = 1024
    drain_s: int = 60
    surge: int = 0
    generation: int = 0
    labelled: bool = True
    seat: Seat | None = None
    hf_token: SecretStr | None = Field(None, exclude=True)

    @property
    def engine(self) -> str:
        """Registered name of the engine."""
        return self.info.name

    @property
    def changes_in_place(self) -> bool:
        """Whether its Serve deployment is our factory's, by our name and with our options; another distribution's may have its own."""
        return self.info.deployment_factory.startswith("ray_serve_cai.")

    @property
    def share(self) -> dict[str, float]:
        """What a replica takes on each of its nodes, in Ray's resources."""
        gpus = self.gpus // self.nodes
        return {"CPU": self.cpus} | ({"GPU": gpus} if gpus else {})

    def copies(self) -> str:
        """For people: how many replicas there are to be."""
        return f"{self.replicas} to {self.autoscaling.max} replicas" if self.autoscaling else counted(self.replicas, "replica")

    def layout(self) -> str:
        """For people: what of the cluster the model takes."""
        share = " and ".join(counted(number, name) for name, number in reversed(self.share.items()))
        where = f"{counted(self.nodes, 'node')} with {share}{' each' if self.nodes > 1 else ''}"
        return f"{self.engine}, {self.copies()} of {counted(self.ranks, 'rank')} on {where}"

    @property
    def limits(self) -> Limits:
        """What its replicas are told, and may be told anew."""
        alone = self.replicas == 1 and not self.autoscaling
        return Limits(max_concurrent=self.max_concurrent, max_queued=self.max_queued, alone=alone)

    def options(self) -> dict[str, Any]:
        """Options of the Serve deployment that follow from the fields in `LIGHT`.

        Serve's own limit lies above the replica's, which answers in OpenAI's words; what is not counted there has room, too.
        """
        scaled = self.autoscaling
        copies: dict[str, Any] = {"num_replicas": self.replicas}
        if scaled:
            takes = self.max_concurrent + self.max_queued
            target = scaled.target_ongoing_requests or min(USUAL_TARGET, takes / 2)
            scale = scaled.model_dump(exclude={"min", "max"}) | {"min_replicas": scaled.min, "max_replicas": scaled.max}
            scale["target_ongoing_requests"] = target
            copies = {"num_replicas": "auto", "autoscaling_config": scale}
        return copies | {
            "max_ongoing_requests": 2 * (self.max_concurrent + self.max_queued),
            "graceful_shutdown_timeout_s": self.drain_s,
            "user_config": self.limits.model_dump(),
            "max_surge_percent": self.surge,
            "rolling_update_percentage": 1 / (scaled.max if scaled else self.replicas),  # one at a time
        }

    def heavy(self) -> EngineConfig:
        """Without what Serve changes in place: where two of these are equal, no replica has to start anew."""
        return self.model_copy(update={name: EngineConfig.model_fields[name].default for name in LIGHT})


def of_arguments(info: EngineInfo, arguments: Mapping[str, Any], *, ranks: int, use_cpu: bool, **more: Any) -> EngineConfig:
    """The engine configuration of arguments as the engine's config builder returns them; ``more`` are further fields.

    Data parallelism among the arguments multiplies the ranks; of a dense model, whose copies its engine does not need together, the
    replicas.

    Raises:
        ConfigError: the arguments name no model, or no name for it, or two numbers of copies.
    """
    rest = dict(arguments)
    model = rest.pop("model", None)
    if not isinstance(model, str) or not model:
        raise ConfigError(f"model: {model!r} in the arguments of engine {info.name} is no model; name one, for example demo.")
    name = rest.pop("served_model_name", model)
    if not isinstance(name, str):
        raise ConfigError(f"served_model_name: {name!r} in the arguments of engine {info.name} is no name; use one text.")
    token = rest.pop("hf_token", None)
    copies = data_parallel.size(rest)
    if copies > 1 and info.copies_are_replicas and data_parallel.experts(model) is False:
        if more.get("autoscaling"):
            raise ConfigError(f"models[{name}]: data_parallel_size is {copies} and autoscaling is set, and both number copies; keep one.")
        rest.pop("data_parallel_size", rest.pop("dp_size", None))
        more["replicas"], copies = more.get("replicas", 1) * copies, 1
    if copies > 1 and more.get("nodes", 1) > 1:
        raise ConfigError(f"models[{name}]: data_parallel_size is {copies}, which works inside a node only; set nodes_per_replica to 1.")
    ranks *= copies
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
