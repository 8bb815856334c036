"""The cluster's nodes and placement groups, as Ray tells them now; needs a Ray connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import UnavailableError, one_line
from ray_serve_cai.serving import room, spread
from ray_serve_cai.serving.spread import Groups
from ray_serve_cai.state import NodeState, ReplicaState

SAID_S = 10.0
"""After which Serve has not said something, seconds."""


def nodes(replicas: Counter[str], groups: Groups) -> tuple[NodeState, ...]:
    """All nodes, with all that they offer; ``replicas`` counts those with their first rank on a node, by its id."""
    import ray
    from ray._private.state import state as ray_state  # ray.nodes() does not say which of them are being drained

    shards, draining = spread.shards_by_node(groups), ray_state.get_draining_nodes()
    return tuple(
        room.node_state(node, replicas[node["NodeID"]], shards[node["NodeID"]], draining=node["NodeID"] in draining) for node in ray.nodes()
    )


def groups(engines: Iterable[EngineConfig]) -> Groups:
    """Ray's placement groups, where there may be a replica that spans nodes."""
    import ray

    return ray.util.placement_group_table() if any(engine.nodes > 1 for engine in engines) else {}


def replicas(models: Mapping[str, str]) -> tuple[ReplicaState, ...]:
    """Where each replica answers itself; ``models`` are the names of models by those of their applications.

    Serve tells its own HAProxy so (ray 2.60, serve/_private/controller.py, ``get_target_groups``), and its REST API nobody.

    Raises:
        UnavailableError: Serve does not say, or not within `SAID_S`.
    """
    import ray
    from ray.exceptions import RayError
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    try:
        groups = ray.get(client._controller.get_target_groups.remote(from_proxy_manager=True), timeout=SAID_S) if client else []
    except RayError as error:
        raise UnavailableError(f"Ray Serve does not say where its replicas are: {type(error).__name__}: {one_line(error)}") from error
    return tuple(
        ReplicaState(models[group.app_name], target.name, target.ip, target.port, group.route_prefix)
        for group in groups
        if group.app_name in models
        for target in group.targets
        if target.name.startswith("SERVE_REPLICA")
    )


def with_what_is_free() -> tuple[Sequence[NodeState], Sequence[NodeState]]:
    """All nodes with all that they offer, and the same with what nobody has taken."""
    from ray._private.state import available_resources_per_node  # where ray.nodes() has only totals

    offered, free = nodes(Counter(), {}), available_resources_per_node()
    left = {node.id: free.get(node.id, {}) for node in offered}
    return offered, [replace(node, cpus=left[node.id].get("CPU", 0), gpus=left[node.id].get("GPU", 0)) for node in offered]
