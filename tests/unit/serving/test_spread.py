from typing import Any

import pytest

from ray_serve_cai.serving import spread


def group(replica: str, *nodes: str, state: str = "CREATED") -> dict[str, Any]:
    return {"name": f"SERVE_REPLICA::demo#engine#{replica}", "state": state, "bundles_to_node_id": dict(enumerate(nodes))}


GROUPS = {
    "1": group("over", "a", "b", "c"),
    "2": group("inside", "a", "a"),
    "3": group("placed", "b", "c"),
    "4": group("waiting", "", "", state="PENDING"),
    "5": group("single", "b"),
}


def replica(name: str, node: str, state: str = "RUNNING") -> dict[str, Any]:
    return {"replica_id": name, "actor_name": f"SERVE_REPLICA::demo#engine#{name}", "node_id": node, "state": state}


def test_shards_by_node() -> None:
    assert spread.shards_by_node(GROUPS) == {"b": 1, "c": 2}


@pytest.mark.parametrize(
    ("draining", "found"),
    [
        (set(), {}),
        ({"a"}, {}),  # the first rank is there, which Serve knows of
        ({"c"}, {"demo": {"over", "placed"}}),
        ({"b"}, {"demo": {"over"}}),
        ({"b", "c"}, {"demo": {"over"}}),
        ({"elsewhere"}, {}),
    ],
)
def test_what_a_node_takes_along(draining: set[str], found: dict[str, set[str]]) -> None:
    serving = [replica("over", "a"), replica("inside", "a"), replica("placed", "b"), replica("single", "b")]
    applications = {"demo": {"deployments": {"engine": {"replicas": serving}}}, "empty": {}}
    assert spread.to_move(GROUPS, applications, frozenset(draining)) == found


def test_a_replica_that_ends_already() -> None:
    applications = {"demo": {"deployments": {"engine": {"replicas": [replica("over", "a", "STOPPING")]}}}}
    assert spread.to_move(GROUPS, applications, frozenset({"b"})) == {}
