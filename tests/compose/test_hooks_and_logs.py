"""A site's own programs before a node starts, and logs for a machine to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.containers import Node, until

pytestmark = pytest.mark.issue(6)
KEYS = {"time", "level", "node", "role", "component", "message"}


def hooks(folder: Path, **programs: str) -> list[tuple[str, str, str]]:
    folder.chmod(0o755)
    for name, script in programs.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return [(str(folder), "/opt/ray-serve-cai/hooks.d", "ro")]


def test_a_hook_that_fails_ends_the_start(tmp_path: Path) -> None:
    mounted = hooks(tmp_path, a="#!/bin/sh\necho for a $RSCAI_ROLE\n", b="#!/bin/sh\necho no licence here >&2\nexit 3\n", c="#!/bin/sh\necho never\n")
    with Node(volumes=mounted) as node:
        assert node.wait_exit(60) == 70
        lines = node.logs().splitlines()
    assert any(line.endswith(" hook a: for a single") for line in lines)
    assert any(line.endswith(" hook b: no licence here") for line in lines)
    assert lines[-1].startswith("ray-serve-cai: error: hook /opt/ray-serve-cai/hooks.d/b ended with exit code 3; ")
    assert not any("never" in line for line in lines)


@pytest.mark.full
def test_every_line_is_an_object(tmp_path: Path, questions: dict[str, str]) -> None:
    """Of the launcher, of the serving process, of the engine on whatever node, and of a hook."""
    mounted = hooks(tmp_path, a="#!/bin/sh\necho hello\n")
    with Node(volumes=mounted, env={"RSCAI_LOG_FORMAT": "json"}, hostname="node-7", shm_size="1g") as node:
        node.api.wait_ready()
        question, answer = next(iter(questions.items()))
        assert node.api.ask(question) == answer
        records = [json.loads(line) for line in node.logs().splitlines()]
        assert all(set(record) - {"from"} == KEYS for record in records)
        assert {record["node"] for record in records} == {"node-7"}
        assert {record["role"] for record in records} == {"single"}
        components = {record["component"] for record in records}
        assert {"launcher", "serve", "hook a", "ServeController", "ServeReplica:demo:engine"} <= components
        assert "\x1b" not in node.logs()


@pytest.mark.full
def test_the_error_is_an_object_too() -> None:
    with Node(env={"RSCAI_LOG_FORMAT": "json", "RSCAI_MODEL": "/nowhere"}) as node:
        assert node.wait_exit(60) == 66
        last = json.loads(until("a line", lambda: node.logs().splitlines(), 10)[-1])
    assert last["level"] == "ERROR"
    assert last["message"].startswith("ray-serve-cai: error: model path '/nowhere' does not exist")
