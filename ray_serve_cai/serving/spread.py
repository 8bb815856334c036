"""Where the ranks of replicas that span nodes stand, as Ray's placement groups tell it. Pure.

Serve places such a replica in a group of its actor's name with a bundle for each node; the first is rank 0's, which Serve itself looks
after: it moves the replicas whose actor is on a node that is being drained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray_serve_cai.serving.standing import TAKING_REQUESTS, replicas

Groups = Mapping[str, Mapping[str, Any]]
"""What ``ray.util.placement_group_table()`` returns."""


def shards(groups: Groups) -> dict[str, frozenset[str]]:
    """Name of a group -> the nodes where it has bundles besides the first one's."""
    found = {}
    for group in groups.values():
        nodes = [node for _, node in sorted(group["bundles_to_node_id"].items())]
        if group["state"] == "CREATED" and set(nodes) - {nodes[0]}:
            found[group["name"]] = frozenset(nodes) - {nodes[0]}
    return found


def shards_by_node(groups: Groups) -> Counter[str]:
    """Node id -> replicas that have ranks there, and their first rank elsewhere."""
    return Counter(node for nodes in shards(groups).values() for node in nodes)


def to_move(groups: Groups, applications: Mapping[str, Any], draining: frozenset[str]) -> dict[str, frozenset[str]]:
    """Application -> its replicas that take requests and have ranks, but not the first, on a node that is being drained."""
    there = shards(groups)
    found = {
        name: frozenset(
            one["replica_id"]
            for one in replicas(application)
            if one["state"] in TAKING_REQUESTS
            and one.get("node_id") not in draining
            and not draining.isdisjoint(there.get(one.get("actor_name", ""), ()))
        )
        for name, application in applications.items()
    }
    return {name: ids for name, ids in found.items() if ids}
