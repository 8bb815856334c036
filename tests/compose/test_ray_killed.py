"""Ray ends and the launcher lives on: the node must not say ready, and must leave so that a restart policy brings it back."""

from __future__ import annotations

import pytest

from tests.containers import Node, until

pytestmark = [pytest.mark.issue(3), pytest.mark.full]


def test_a_node_without_ray_says_so_and_leaves() -> None:
    with Node(shm_size="1g") as node:
        node.api.wait_ready()
        node.exec("ray", "stop", check=False)
        until("no longer ready", lambda: not node.api.is_ready(), 30)
        assert node.wait_exit(90) != 0
        assert "ray-serve-cai: error:" in node.logs()
