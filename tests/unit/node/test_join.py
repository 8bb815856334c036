import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from ray_serve_cai.errors import AddressTakenError, TlsError, TokenError, UnavailableError, VersionMismatchError
from ray_serve_cai.node import join
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.join import Roll
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.state import ModelFiles

TOKEN = "a1" * 24
HEAD = Address("127.0.0.1", 7000)


@dataclass
class FakeHead:
    """A head on loopback: each request gets the next answer, and the last one for ever."""

    answers: list[Callable[[], web.Response]]
    seen: list[str | None] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    port: int = 0
    hangs: bool = False

    async def hear(self, request: web.Request) -> web.Response:
        self.heard.append((request.headers.get("Authorization"), await request.json()))
        return web.Response(status=204)

    async def serve(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.Event().wait()
        self.seen.append(request.headers.get("Authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()


@pytest.fixture
def roll(manifest: Manifest) -> dict[str, Any]:
    nodes = [{"id": "2", "ip": "10.0.0.2", "alive": True, "role": "worker", "replicas": 1}, {"id": "1", "ip": "10.0.0.1", "alive": False}]
    files = [{"model": "demo", "source": "/models/demo", "engine": "vllm", "gpus": 0}]
    return {"session": "s1", "manifest": manifest.as_dict(), "stopping": False, "nodes": nodes, "spanning": ["vllm"], "files": files}


def the_roll(told: dict[str, Any]) -> Roll:
    return Roll(**told | {"files": [ModelFiles(**one) for one in told["files"]]})


@pytest_asyncio.fixture
async def head(roll: dict[str, Any]) -> AsyncIterator[FakeHead]:
    fake = FakeHead([lambda: web.json_response(roll)])
    app = web.Application()
    app.router.add_get("/cluster", fake.serve)
    app.router.add_post("/refused", fake.hear)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.port = runner.addresses[0][1]
    yield fake
    await runner.cleanup()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "POLL_S", 0.01)


def status(code: int) -> Callable[[], web.Response]:
    return lambda: web.json_response({"error": "x"}, status=code)


async def test_the_roll(head: FakeHead, roll: dict[str, Any]) -> None:
    assert await join.fetch_roll(HEAD, head.port, TOKEN) == the_roll(roll)
    assert head.seen == [f"Bearer {TOKEN}"]


def test_the_living_node_of_an_address(roll: dict[str, Any]) -> None:
    found = the_roll(roll)
    assert found.node("10.0.0.2") == roll["nodes"][0]
    assert found.node("10.0.0.1") is None
    assert found.node("10.0.0.9") is None


async def test_a_wrong_token(head: FakeHead) -> None:
    head.answers = [status(401)]
    with pytest.raises(
        TokenError, match=r"head at 127\.0\.0\.1:7000 refused this node's token; give all nodes the same RSCAI_TOKEN"
    ) as caught:
        await join.fetch_roll(HEAD, head.port, TOKEN)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        pytest.param(status(500), "500", id="error"),
        pytest.param(status(503), "503", id="not yet"),
        pytest.param(lambda: web.Response(text="hello"), "unexpected mimetype", id="no JSON"),
        pytest.param(lambda: web.Response(text="{", content_type="application/json"), "Expecting", id="half JSON"),
        pytest.param(lambda: web.json_response([1]), "[1] is no roll of a cluster", id="a list"),
        pytest.param(lambda: web.json_response({"session": "s"}), "{'session': 's'} is no roll", id="too little"),
    ],
)
async def test_an_answer_that_is_no_roll(head: FakeHead, answer: Callable[[], web.Response], part: str) -> None:
    head.answers = [answer]
    with pytest.raises(UnavailableError) as caught:
        await join.fetch_roll(HEAD, head.port, TOKEN)
    assert f"http://127.0.0.1:{head.port}/cluster: " in str(caught.value)
    assert part in str(caught.value)


async def test_a_head_that_does_not_answer_in_time(head: FakeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "REQUEST_TIMEOUT_S", 0.05)
    head.hangs = True
    with pytest.raises(UnavailableError, match=rf":{head.port}/cluster: .*[Tt]imeout"):
        await join.fetch_roll(HEAD, head.port, TOKEN)


async def test_waiting_for_a_late_head(head: FakeHead, roll: dict[str, Any]) -> None:
    head.answers = [status(503), status(503), *head.answers]
    said: list[str] = []
    assert await join.wait_for_head(HEAD, head.port, 5, lambda: TOKEN, said.append) == the_roll(roll)
    assert len(said) == 2
    assert all(line.startswith("waiting for the head at 127.0.0.1:7000: ") for line in said)


async def test_waiting_for_the_token(head: FakeHead, roll: dict[str, Any]) -> None:
    keys = iter([None, None, TOKEN])
    said: list[str] = []
    assert await join.wait_for_head(HEAD, head.port, 5, lambda: next(keys), said.append) == the_roll(roll)
    assert head.seen == [f"Bearer {TOKEN}"]
    assert all("no cluster token yet" in line for line in said)


async def test_a_wrong_token_ends_the_waiting(head: FakeHead) -> None:
    head.answers = [status(503), status(401)]
    with pytest.raises(TokenError):
        await join.wait_for_head(HEAD, head.port, 5, lambda: TOKEN, lambda line: None)


async def test_a_head_that_never_comes(free_port: int) -> None:
    with pytest.raises(UnavailableError) as caught:
        await join.wait_for_head(HEAD, free_port, 0.05, lambda: TOKEN, lambda line: None)
    for part in ("no head at 127.0.0.1:7000 after 0 s", f"127.0.0.1:{free_port}", "RSCAI_HEAD_ADDRESS", "RSCAI_JOIN_TIMEOUT_S"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 69


async def test_a_token_that_never_comes(free_port: int) -> None:
    with pytest.raises(
        TokenError, match="^no cluster token after 0 s; give all nodes the same RSCAI_TOKEN or RSCAI_TOKEN_FILE, or the head's"
    ):
        await join.wait_for_head(HEAD, free_port, 0.05, lambda: None, lambda line: None)


async def test_long_waiting_is_logged(free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(join, "PROGRESS_S", 0.01)
    with caplog.at_level(logging.INFO), pytest.raises(UnavailableError):
        await join.wait_for_head(HEAD, free_port, 0.1, lambda: TOKEN, lambda line: None)
    assert "waiting for the head at 127.0.0.1:7000 since" in caplog.text


def test_equal_nodes_may_join(manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    join.compare(manifest, manifest.as_dict(), ["vllm"])
    assert caplog.records == []


@pytest.mark.parametrize(("key", "other"), [("protocol", 2), ("ray", "2.59.0"), ("python", "3.12.1")])
def test_what_must_be_equal(manifest: Manifest, key: str, other: object) -> None:
    mine = getattr(manifest, key)
    for head in (manifest.as_dict() | {key: other}, replace(manifest, **{key: other}).as_dict()):
        with pytest.raises(VersionMismatchError, match=f"this node has {key} {mine} and the head has {other}; start both from images"):
            join.compare(manifest, head, [])


def test_a_head_that_says_nothing_of_itself(manifest: Manifest) -> None:
    with pytest.raises(VersionMismatchError, match="the head has None"):
        join.compare(manifest, {}, [])


@pytest.mark.parametrize("key", ["engine", "engine_version", "device", "schema"])
def test_what_may_differ(manifest: Manifest, key: str) -> None:
    join.compare(manifest, manifest.as_dict() | {key: "other"}, ["sglang"])


def test_ranks_of_one_replica_have_one_engine_version(manifest: Manifest) -> None:
    head = manifest.as_dict() | {"engine_version": "0.31.0"}
    with pytest.raises(VersionMismatchError, match="this node has engine_version 0.32.0 and the head has 0.31.0"):
        join.compare(manifest, head, ["vllm"])
    join.compare(manifest, head | {"engine": "sglang"}, ["vllm"])  # the head's own engine is another one


def test_another_build_only_warns(manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    join.compare(manifest, manifest.as_dict() | {"build_id": "def456"}, ["vllm"])
    assert "this node is build abc123 and the head is build def456" in caplog.text


async def test_a_head_of_another_build(head: FakeHead, roll: dict[str, Any]) -> None:
    """It may say more, or less; what must be equal is compared after that."""
    older = {key: value for key, value in roll.items() if key not in ("spanning", "files")}
    head.answers = [lambda: web.json_response(older), lambda: web.json_response(roll | {"news": 1}), lambda: web.json_response(["roll"])]
    assert (await join.fetch_roll(HEAD, head.port, TOKEN)).spanning == []
    assert (await join.fetch_roll(HEAD, head.port, TOKEN)).spanning == ["vllm"]
    with pytest.raises(UnavailableError):
        await join.fetch_roll(HEAD, head.port, TOKEN)


async def test_an_address_that_the_clusters_dead_node_had(roll: dict[str, Any]) -> None:
    left = [the_roll(roll), the_roll(roll | {"nodes": []})]

    async def look() -> Roll:
        return left.pop(0)

    await join.check_address("10.0.0.9", the_roll(roll), look)
    await join.check_address("10.0.0.1", the_roll(roll), look)  # not alive
    assert len(left) == 2
    await join.check_address("10.0.0.2", the_roll(roll), look)
    assert left == []


async def test_an_address_of_another_living_node(roll: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "GONE_S", 0.05)

    async def look() -> Roll:
        return the_roll(roll)

    with pytest.raises(AddressTakenError, match=r"this node's address is 10\.0\.0\.2, and the cluster has a living node .*RSCAI_NODE_IP"):
        await join.check_address("10.0.0.2", the_roll(roll), look)


@pytest.mark.parametrize(("host", "asked"), [("10.0.0.9", "10.0.0.9"), ("fd00::9", "fd00::9")])
async def test_the_own_address_to_a_literal(host: str, asked: str) -> None:
    assert await join.own_ip(Address(host), {asked: "10.0.0.5"}.get) == "10.0.0.5"


async def test_the_own_address_to_a_name() -> None:
    asked: list[str] = []

    def source_ip(target: str) -> str:
        asked.append(target)
        return "10.0.0.5"

    assert await join.own_ip(Address("localhost"), source_ip) == "10.0.0.5"
    assert asked[0] in ("127.0.0.1", "::1")


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(UnavailableError, match="'nowhere' does not resolve: Name or service not known"):
        await join.own_ip(Address("nowhere"), lambda target: None)


async def test_no_route() -> None:
    with pytest.raises(UnavailableError, match=r"no route to the head at 10\.0\.0\.9; check the network, or set RSCAI_NODE_IP"):
        await join.own_ip(Address("10.0.0.9"), lambda target: None)


@pytest.mark.parametrize("mine", [True, False])
def test_tls_on_one_side_only(roll: dict[str, Any], mine: bool) -> None:
    sides = "this node uses TLS and the head does not" if mine else "the head uses TLS and this node does not"
    with pytest.raises(TlsError, match=f"^{sides}; set RAY_USE_TLS=1 and certificates on all nodes, or on none"):
        join.compare_tls(mine, Roll(**roll | {"tls": not mine}))
    join.compare_tls(mine, Roll(**roll | {"tls": mine}))
    join.compare_tls(mine, Roll(**roll))  # a head of an older build


async def test_the_head_hears_why_a_node_does_not_join(head: FakeHead) -> None:
    await join.tell_refused(HEAD, head.port, TOKEN, "no model here")
    assert head.heard == [(f"Bearer {TOKEN}", {"reason": "no model here"})]


async def test_a_head_that_cannot_hear_it() -> None:
    await join.tell_refused(HEAD, 1, TOKEN, "no model here")
