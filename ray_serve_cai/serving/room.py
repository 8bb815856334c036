"""Whether replicas find room on the cluster's nodes, and the sentence that says what is missing where they do not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray_serve_cai import labels
from ray_serve_cai.engines import data_parallel
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import ResourceError, counted
from ray_serve_cai.state import NodeState

_DIGITS = 4
"""After the point: Ray's own resolution of resources."""


def node_state(node: Mapping[str, Any], replicas: int = 0, shards: int = 0, *, draining: bool = False) -> NodeState:
    """One of Ray's nodes, as ``ray.nodes()`` gives it, with what it offers in all."""
    named, offers = node.get("Labels", {}), node.get("Resources", {})
    return NodeState(
        id=node.get("NodeID", ""),
        ip=node.get("NodeManagerAddress", ""),
        alive=node.get("Alive", True),
        role=named.get(labels.ROLE, ""),
        replicas=replicas,
        shards=shards,
        draining=draining,
        engines=tuple(labels.engines(named)),
        cpus=float(offers.get("CPU", 0)),
        gpus=float(offers.get("GPU", 0)),
    )


def place(engine: EngineConfig, nodes: Sequence[NodeState], wanted: int) -> tuple[int, list[NodeState]]:
    """How many of so many replicas fit, and the open nodes with what is left of them.

    One that spans nodes goes where most is left, so that the rest stays even; any other where it leaves least behind. The head comes
    last. The arrangement that Ray makes may be another one: what does not fit here is told, and tried all the same.
    """
    left = [node for node in nodes if node.open]
    sign = -1 if engine.nodes > 1 else 1
    for placed in range(wanted):
        suited = sorted(
            (node for node in left if suits(engine, node)), key=lambda node: (node.role == "head", sign * node.gpus, sign * node.cpus)
        )
        taken = {id(node) for node in suited[: engine.nodes]}
        if len(taken) < engine.nodes:
            return placed, left
        left = [_less(node, engine) if id(node) in taken else node for node in left]
    return wanted, left


def _less(node: NodeState, engine: EngineConfig) -> NodeState:
    share = engine.share
    return replace(node, cpus=round(node.cpus - share["CPU"], _DIGITS), gpus=round(node.gpus - share.get("GPU", 0), _DIGITS))


def has_engine(engine: EngineConfig, node: NodeState) -> bool:
    """Whether the node can run the engine, as far as labels say."""
    return not engine.labelled or engine.engine in node.engines


def suits(engine: EngineConfig, node: NodeState) -> bool:
    """Whether one node's share of a replica fits on this node."""
    share = engine.share
    return has_engine(engine, node) and node.cpus >= share["CPU"] and node.gpus >= share.get("GPU", 0)


@dataclass(frozen=True)
class Shortfall:
    """What a model lacks: how many of its replicas fit, the fact about the others, and a fix."""

    placed: int
    fact: str
    fix: str

    @property
    def said(self) -> str:
        """Fact and fix, as a sentence."""
        return f"{self.fact}; {self.fix}."


def shortfalls(engines: Iterable[EngineConfig], nodes: Sequence[NodeState]) -> dict[str, Shortfall]:
    """What is missing, by model, after the models before it have their replicas; models that fit are left out."""
    there = left = [node for node in nodes if node.open]
    found = {}
    for engine in engines:
        before = left
        placed, left = place(engine, left, engine.replicas)
        if placed < engine.replicas:
            found[engine.name] = shortfall(engine, placed, there, before)
    return found


def check_alone(engines: Iterable[EngineConfig], node: NodeState) -> None:
    """See that every model has room on the only node that there will ever be.

    Raises:
        ResourceError: one has not.
    """
    for name, missing in shortfalls(engines, [node]).items():
        raise ResourceError(
            f"model {name!r}: {missing.fact}; no other node can join this one: ask for less, or start a head (RSCAI_ROLE=head) and workers."
        )


def shortfall(engine: EngineConfig, placed: int, nodes: Sequence[NodeState], left: Sequence[NodeState]) -> Shortfall:
    """What a model lacks of which only ``placed`` replicas fit.

    Args:
        nodes: the cluster's open nodes, with what they offer in all.
        left: the same nodes with what is left to this model.
    """
    able = [node for node in nodes if has_engine(engine, node)]
    if nodes and not able:
        known = ", ".join(sorted({name for node in nodes for name in node.engines})) or "none"
        fact = f"engine {engine.engine!r} is installed on no node; installed: {known}"
        return Shortfall(placed, fact, "start a node from an image that has it")
    gpus, cpus = engine.share.get("GPU", 0), engine.share["CPU"]
    rest = [node for node in place(engine, left, placed)[1] if has_engine(engine, node)]
    both = bool(gpus) and sum(node.gpus >= gpus for node in rest) >= engine.nodes
    some = f"there is room for {placed} of {counted(engine.replicas, 'replica')}; each " if placed else ""
    each = " each" if engine.nodes > 1 else ""
    has = f"the cluster has {_groups(able, gpus, both) or 'no node'}"
    if place(engine, able, placed + 1)[0] > placed:
        free = [node for node in left if has_engine(engine, node)]
        has += f", of which is free: {_groups(free, gpus, both) or 'none'}"
    others = len(nodes) - len(able)
    more = f" ({others} more without engine {engine.engine!r})" if others else ""
    needs = f"{some}needs {counted(engine.nodes, 'node')} with {_amount(gpus, cpus, both)}{each}"
    return Shortfall(placed, f"{needs}; {has}{more}", _fix(engine, placed, left, of_cpus=both or not gpus))


def _fix(engine: EngineConfig, placed: int, left: Sequence[NodeState], *, of_cpus: bool) -> str:
    if placed:
        return f"add nodes, or ask for {placed}"
    for nodes in range(1, engine.ranks + 1) if engine.info.spans_nodes and data_parallel.size(engine.arguments) == 1 else ():
        if nodes != engine.nodes and engine.ranks % nodes == 0 and place(engine.model_copy(update={"nodes": nodes}), left, 1)[0]:
            return f"add nodes, or set nodes_per_replica: {nodes}, which fits"
    if of_cpus:
        return "add nodes, or lower cpus_per_replica"
    return "add nodes, or lower tensor_parallel_size" if engine.ranks > 1 else "add nodes"


def _amount(gpus: float, cpus: float, both: bool) -> str:
    shown = [counted(gpus, "GPU")] if gpus else []
    if both or not gpus:
        shown.append(counted(cpus, "CPU"))
    return " and ".join(shown)


def _groups(nodes: Sequence[NodeState], gpus: float, both: bool) -> str:
    """Nodes by what they have of what counts: ``1 with 4 and 2 with 2``."""
    if both:
        parts = Counter((node.gpus, node.cpus) for node in nodes)
        shown = [f"{count} with {_amount(has, cpus, True)}" for (has, cpus), count in sorted(parts.items(), reverse=True)]
    else:
        single = Counter(node.gpus if gpus else node.cpus for node in nodes)
        shown = [f"{count} with {f'{has:g}' if has else 'none'}" for has, count in sorted(single.items(), reverse=True)]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
