"""How a running cluster comes from one configuration to the next: what each model needs, and when it has come there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import ConfigError, ResourceError, counted
from ray_serve_cai.serving import room
from ray_serve_cai.serving.standing import TAKING_REQUESTS, replicas, running_replicas
from ray_serve_cai.state import NodeState

UNCHANGED, IN_PLACE, SURGE, ONE_BY_ONE, PAUSE = "unchanged", "in place", "surge", "one by one", "pause"


@dataclass(frozen=True)
class Step:
    """What becomes of one model.

    Attributes:
        engine: its configuration, with the surge that Serve is told.
        kind: one of the constants above.
        said: the same for people.
        expected: replicas that must run for the step to be done.
    """

    engine: EngineConfig
    kind: str
    said: str
    expected: int


def plan(
    old: Sequence[EngineConfig],
    new: Sequence[EngineConfig],
    running: Mapping[str, int],
    nodes: Sequence[NodeState],
    free: Sequence[NodeState],
    *,
    allow_downtime: bool,
    must: bool = False,
) -> list[Step]:
    """A step for each model, in the order of the configuration.

    Args:
        running: model -> replicas that take requests.
        nodes: the cluster's nodes, with all that they offer.
        free: the same nodes, with what nobody has taken.
        must: old replicas are to end even where a new one has no room at all.

    Raises:
        ConfigError: models come, go, or change their order.
        ResourceError: a model would not answer for a while, and that was not allowed; or it fits nowhere.
    """
    before, after = [engine.name for engine in old], [engine.name for engine in new]
    if before != after:
        raise ConfigError(
            f"the cluster serves {', '.join(before)}, and the new configuration has {', '.join(after)}; an update keeps the models "
            "and their order: start the head anew with the new configuration."
        )
    steps, left, there = [], [node for node in free if node.open], [node for node in nodes if node.open]
    for former, engine in zip(old, new, strict=True):
        here = running.get(engine.name, 0)
        if must and settled(former) != engine and not room.place(engine, there, 1)[0]:
            said = f"its streams end, and it waits for room: {room.shortfall(engine, 0, there, there).said}"
            steps.append(Step(engine, PAUSE, said, 0))
            continue
        step, left = _step(former, engine, here, nodes=there, free=left, allow_downtime=allow_downtime)
        steps.append(step)
    return steps


def settled(engine: EngineConfig) -> EngineConfig:
    """As it is between updates."""
    return engine.model_copy(update={"surge": 0})


def renewed(engine: EngineConfig) -> EngineConfig:
    """The same again, for which every replica has to start anew."""
    return engine.model_copy(update={"surge": 0, "generation": engine.generation + 1})


def same_generation(old: Sequence[EngineConfig], new: Sequence[EngineConfig]) -> list[EngineConfig]:
    """The new configurations with the generations that their models have reached."""
    reached = {engine.name: engine.generation for engine in old}
    return [engine.model_copy(update={"generation": reached.get(engine.name, 0)}) for engine in new]


def _step(
    old: EngineConfig, new: EngineConfig, running: int, *, nodes: Sequence[NodeState], free: list[NodeState], allow_downtime: bool
) -> tuple[Step, list[NodeState]]:
    if settled(old) == new:
        return Step(old, UNCHANGED, "unchanged", 0), free
    if running and not (old.changes_in_place and new.changes_in_place):
        if not allow_downtime:
            raise ConfigError(
                f"model {new.name!r}: engine {new.engine!r} makes its own Serve deployment, which may not answer while it changes; "
                "accept that with --allow-downtime."
            )
        return Step(new, PAUSE, "the engine's own deployment changes as it will", 1), free
    if old.heavy() == new.heavy():
        placed, left = room.place(new, free, max(new.replicas - running, 0))
        expected = max(min(new.replicas, running + placed), 1)
        said = f"{new.copies()}, changed in place{_lacks(new, expected, nodes, free)}"
        return Step(new, IN_PLACE, said, expected), left
    target = max(new.replicas, min(running, new.autoscaling.max)) if new.autoscaling else new.replicas
    fits_in_place = _fits_in_place_of(old, new)
    placed, left = room.place(new, free, target)
    expected = min(new.replicas, running + placed)
    lacks = _lacks(new, expected, nodes, free)
    somewhere = room.place(new, nodes, target)[0]
    if not somewhere:
        raise ResourceError(f"model {new.name!r} fits nowhere: {room.shortfall(new, 0, nodes, nodes).said}")
    if not running:
        return Step(new, PAUSE, f"{counted(target, 'replica')} to start; none runs now{lacks}", max(expected, 1)), left
    if placed == target or (placed and fits_in_place):
        surge = new.model_copy(update={"surge": max(100 * placed // target, 1)})
        how = (
            "all new replicas start before old ones end"
            if placed == target
            else f"new replicas start before old ones end, {placed} at a time"
        )
        return Step(surge, SURGE, f"{how}{lacks}", expected), left
    if min(running, target) > 1 and fits_in_place:
        return Step(new, ONE_BY_ONE, f"no room for more: one replica after the other ends and is replaced{lacks}", expected), free
    if allow_downtime:
        said = f"no room for more: {counted(running, 'replica')} must end before new ones start"
        return Step(new, PAUSE, said, min(new.replicas, somewhere)), free
    lacking = room.shortfall(new, placed, nodes, free).said.rstrip(".")
    which = f"{'all new replicas' if placed else 'a new replica'} while the old {'one runs' if running == 1 else 'ones run'}"
    raise ResourceError(
        f"model {new.name!r} has no room for {which}: {lacking}; or accept that it does not answer for a while, with --allow-downtime."
    )


def _lacks(new: EngineConfig, expected: int, nodes: Sequence[NodeState], free: Sequence[NodeState]) -> str:
    return f"; {room.shortfall(new, expected, nodes, free).said}" if expected < new.replicas else ""


def _fits_in_place_of(old: EngineConfig, new: EngineConfig) -> bool:
    """Whether what one old replica leaves is enough for a new one, wherever it was."""
    same = old.engine == new.engine and old.nodes == new.nodes
    return same and all(new.share[name] <= old.share.get(name, 0) for name in new.share)


def done(step: Step, application: Mapping[str, Any], old: Collection[str]) -> bool:
    """Whether a model has come to its step's end; ``old`` are the ids of the replicas it had before."""
    if step.kind == UNCHANGED:
        return True
    if step.kind == IN_PLACE:
        most = step.engine.autoscaling.max if step.engine.autoscaling else step.engine.replicas
        return step.expected <= running_replicas(application) <= most
    there = [replica for replica in replicas(application) if replica["state"] != "STOPPING"]
    running = sum(replica["state"] in TAKING_REQUESTS for replica in there)
    return running >= step.expected and not any(replica["replica_id"] in old for replica in there)


def progress(step: Step, application: Mapping[str, Any], old: Collection[str]) -> str:
    """How far a model is on its way to the step's end."""
    fresh = sum(
        one["state"] in TAKING_REQUESTS and (step.kind == IN_PLACE or one["replica_id"] not in old) for one in replicas(application)
    )
    return f"{fresh} of {step.expected} {'' if step.kind == IN_PLACE else 'new '}replicas run"
