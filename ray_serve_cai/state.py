"""The cluster's state as the head sees it: written by the serving process, read by the launcher's status server."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

PHASES = ("starting", "waiting for nodes", "starting serve", "loading weights", "warming up", "ready", "degraded", "failed")


def models_path(name: str) -> str:
    """Where the model of this name is always found."""
    return f"/models/{name.strip('/')}"


@dataclass(frozen=True)
class ModelState:
    """One model: ``ready`` once it has answered through the ingress; ``replicas`` counts the running ones."""

    name: str
    engine: str
    ready: bool = False
    state: str = "waiting"
    replicas: int = 0
    error: str = ""


@dataclass(frozen=True)
class ModelFiles:
    """What a node needs to be given a part of a model.

    Attributes:
        model: its name.
        source: a path, or an id of the hub.
        engine: the engine that loads it.
        gpus: GPUs of one node's share.
    """

    model: str
    source: str
    engine: str
    gpus: float = 0


@dataclass(frozen=True)
class NodeState:
    """One Ray node.

    Attributes:
        replicas: those of any model with their first rank here.
        shards: those with ranks here, and their first rank elsewhere.
        draining: it is about to leave, and takes nothing new.
        engines: those installed here.
        cpus: all that it offers, as ``gpus``.
    """

    id: str
    ip: str
    alive: bool
    role: str = ""
    replicas: int = 0
    engines: tuple[str, ...] = ()
    cpus: float = 0
    gpus: float = 0
    shards: int = 0
    draining: bool = False

    @property
    def open(self) -> bool:
        """Whether something can be placed on it."""
        return self.alive and not self.draining


@dataclass(frozen=True)
class ReplicaState:
    """A replica that takes requests, and where it answers itself: at ``http://ip:port``, below ``prefix``."""

    model: str
    id: str
    ip: str
    port: int
    prefix: str = "/"


@dataclass(frozen=True)
class ClusterState:
    """Phase and detail for people; models, nodes and replicas for machines.

    ``expected`` nodes are waited for before deploying, and each needs what ``files`` says.
    """

    phase: str = "starting"
    detail: str = "starting Ray"
    models: tuple[ModelState, ...] = ()
    nodes: tuple[NodeState, ...] = ()
    files: tuple[ModelFiles, ...] = ()
    replicas: tuple[ReplicaState, ...] = ()
    expected: int = 1
    was_ready: bool = False

    @property
    def ready(self) -> bool:
        """Every model answers."""
        return bool(self.models) and all(model.ready for model in self.models)

    @property
    def alive(self) -> int:
        return sum(node.alive for node in self.nodes)


def write(path: Path, state: ClusterState) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(state)))
    os.replace(temporary, path)


def read(path: Path) -> ClusterState:
    """The last written state, or the state of a cluster that has not begun."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return ClusterState()
    models = tuple(ModelState(**model) for model in data.pop("models"))
    nodes = tuple(NodeState(**node | {"engines": tuple(node["engines"])}) for node in data.pop("nodes"))
    files = tuple(ModelFiles(**one) for one in data.pop("files"))
    replicas = tuple(ReplicaState(**one) for one in data.pop("replicas"))
    return ClusterState(models=models, nodes=nodes, files=files, replicas=replicas, **data)
