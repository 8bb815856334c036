"""What a node finds wrong with its machine before it starts anything, and what it does then."""

from __future__ import annotations

import socket

import pytest

from tests.containers import IMAGE, Node, run

pytestmark = [pytest.mark.issue(6), pytest.mark.full]


def test_a_port_in_use() -> None:
    """With host networking another program may have it: nothing is started, and the line names the variable."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("docker", "run", "--rm", "--network", "host", "--shm-size", "256m", "-e", f"RSCAI_PORT={port}", IMAGE, check=False)
    assert done.returncode == 71
    assert done.stderr.endswith(f"ray-serve-cai: error: port {port} on 0.0.0.0 (front_door) is in use; set RSCAI_PORT to a free one.\n")
    assert "Started" not in done.stdout + done.stderr


def test_the_shared_memory_that_docker_gives(questions: dict[str, str]) -> None:
    """64 MB: one rank serves, with a warning that has the exact flag."""
    with Node(shm_size="64m") as node:
        node.api.wait_ready()
        assert "/dev/shm is small, so Ray's object store goes to /tmp; start the container with --shm-size 1g." in node.logs()
        question = next(iter(questions))
        assert node.api.ask(question) == questions[question]


def test_a_proxy_in_the_environment_is_in_nobodys_way(questions: dict[str, str]) -> None:
    """As Docker's client configuration puts it into every container; this one leads nowhere."""
    proxy = "http://192.0.2.1:3128"
    with Node(env={"HTTP_PROXY": proxy, "http_proxy": proxy, "ALL_PROXY": proxy}, shm_size="1g") as node:
        node.api.wait_ready()
        question = next(iter(questions))
        assert node.api.ask(question) == questions[question]
