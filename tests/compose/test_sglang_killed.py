"""A process of SGLang's killed while an answer streams: the stream ends, the node says so, and serves again by itself."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.containers import SGLANG, Node, until

pytestmark = [pytest.mark.issue(4), pytest.mark.full]
QUESTION = "What is ray-serve-cai?"
LONG = {"model": "demo", "prompt": "a", "max_tokens": 2000, "ignore_eos": True, "temperature": 0, "stream": True}
SCHEDULER, DETOKENIZER, REPLICA, RAYLET = "sglang::scheduler", "sglang::detokenizer", "ray::ServeReplica", "raylet/raylet"
STREAM_ENDS_S = 15
NOTICED_S = 15
AGAIN_S = 180


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(SGLANG, shm_size="1g") as started:
        started.api.wait_ready()
        yield started


def processes(node: Node) -> dict[str, list[int]]:
    """Process ids of the engine's processes, of the replica that they belong to and of Ray's own."""
    lines = [line.split(None, 1) for line in node.exec("ps", "-eo", "pid=,args=").stdout.splitlines()]
    return {name: [int(pid) for pid, command in lines if name in command] for name in (SCHEDULER, DETOKENIZER, REPLICA, RAYLET)}


def one_of_each(node: Node) -> dict[str, list[int]]:
    """The processes, once each kind is there once: a fork has the name of its parent for a moment."""
    found = processes(node)
    assert all(len(pids) == 1 for pids in found.values()), found
    return found


def rest(chunks: Iterator[str]) -> list[str]:
    """What still comes of a stream until it ends or breaks; silence is an error of its own."""
    seen: list[str] = []
    with contextlib.suppress(httpx.RemoteProtocolError):
        seen.extend(chunks)
    return seen


def post(node: Node, *, seconds: float) -> httpx.Response:
    """A short request of a client who does not wait: until the front door knows, Ray keeps requests for the next replica."""
    return httpx.post(f"{node.api.url}/v1/completions", json={"model": "demo", "prompt": "a", "max_tokens": 1}, timeout=seconds)


@pytest.mark.parametrize("victim", [SCHEDULER, DETOKENIZER, REPLICA])
def test_serves_again(node: Node, victim: str, questions: dict[str, str], record_property: pytest.RecordProperty) -> None:
    before = until("one of each", lambda: one_of_each(node), NOTICED_S)
    with httpx.stream("POST", f"{node.api.url}/v1/completions", json=LONG, timeout=STREAM_ENDS_S) as answer:
        chunks = (line for line in answer.iter_lines() if line)
        assert all('"text":' in chunk for chunk in itertools.islice(chunks, 5))
        killed = time.monotonic()
        node.exec("kill", "-9", str(before[victim][0]))
        assert "data: [DONE]" not in rest(chunks)
    seconds = {"stream ended": time.monotonic() - killed}
    until("not ready", lambda: not node.api.is_ready(), NOTICED_S, interval=0.1)
    seconds["not ready"] = time.monotonic() - killed
    until("degraded", lambda: node.api.health()["phase"] == "degraded", NOTICED_S, interval=0.1)
    refused = until("refused", lambda: post(node, seconds=2), NOTICED_S)
    assert (refused.status_code, refused.json()["error"]["code"], "retry-after" in refused.headers) == (503, 503, True)
    until("answers", lambda: node.api.ask(QUESTION) == questions[QUESTION], AGAIN_S, interval=0.2)
    seconds["served again"] = time.monotonic() - killed
    node.api.wait_ready(NOTICED_S)
    after = until("one of each", lambda: one_of_each(node), NOTICED_S)
    assert {name for name in after if after[name] == before[name]} == {RAYLET}
    told = ", ".join(f"{what} after {value:.1f} s" for what, value in seconds.items())
    record_property("seconds", told)
    print(f"killed {victim}: {told}")
