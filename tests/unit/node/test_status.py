import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from ray_serve_cai import __version__
from ray_serve_cai.node import status as module
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.node.refusals import Refusals
from ray_serve_cai.node.status import NodeStatus
from ray_serve_cai.state import ClusterState, ModelState, NodeState

TOKEN = "a1" * 24
WAITING = ModelState("demo", "vllm")
READY = ModelState("demo", "vllm", ready=True, state="ready", replicas=1)
NODES = (NodeState("1", "10.0.0.1", True, "head"), NodeState("2", "10.0.0.2", False, "worker", 1))
STATES = {
    "starting": ClusterState(models=(WAITING,), expected=2),
    "waiting": ClusterState("waiting for nodes", "nodes joined 1/2", (WAITING,), NODES, expected=2),
    "loading": ClusterState("loading weights", "loading weights: demo", (WAITING,), NODES, expected=2),
    "half": ClusterState("loading weights", "loading weights: b", (READY, ModelState("b", "vllm")), NODES, expected=2),
    "both": ClusterState("ready", "every model answers", (READY, ModelState("b", "vllm", ready=True)), NODES, expected=2, was_ready=True),
    "ready": ClusterState("ready", "every model answers", (READY,), NODES, expected=2, was_ready=True),
    "degraded": ClusterState("degraded", "not answering: demo", (WAITING,), NODES, expected=2, was_ready=True),
    "failed": ClusterState("failed", "no memory", (ModelState("demo", "vllm", state="failed", error="no memory"),), NODES, expected=2),
}

Make = Callable[..., NodeStatus]
Connect = Callable[[NodeStatus], Awaitable["TestClient[object, object]"]]


@pytest.fixture
def make(manifest: Manifest) -> Make:
    """A head in a named state; keyword arguments change it."""

    def made(state: str = "ready", **changes: object) -> NodeStatus:
        facts = {"role": "head", "manifest": manifest, "cluster": lambda: STATES[state], "session": "s1", "token": TOKEN, "open_doors": {0}}
        return NodeStatus(**facts | changes)  # type: ignore[arg-type]

    return made


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    clients = []

    async def connected(status: NodeStatus) -> "TestClient[object, object]":
        client = TestClient(TestServer(module.application(status)))
        clients.append(client)
        await client.start_server()
        return client

    yield connected
    for client in clients:
        await client.close()


async def test_a_refused_worker_says_why(make: Make, connect: Connect) -> None:
    client = await connect(make(role="worker", refused="another token", detail="waiting", open_doors=set()))
    answer = await client.get("/ready")
    document = await answer.json()
    assert (answer.status, document["phase"], document["detail"]) == (503, "refused", "another token")
    assert (await (await client.get("/health")).json())["status"] == "failed"


@pytest.mark.parametrize(
    ("state", "changes", "word", "phase", "detail"),
    [
        ("starting", {}, "starting", "starting", "starting Ray"),
        ("loading", {}, "starting", "loading weights", "loading weights: demo"),
        ("ready", {}, "ok", "ready", "every model answers"),
        ("degraded", {}, "degraded", "degraded", "not answering: demo"),
        ("failed", {}, "failed", "failed", "no memory"),
        ("ready", {"stopping": True}, "stopping", "stopping", "no new requests"),
        ("starting", {"role": "worker", "detail": "waiting"}, "starting", "joining", "waiting"),
        ("starting", {"role": "worker", "joined": True, "detail": "in"}, "ok", "joined", "in"),
        ("starting", {"role": "worker", "joined": True, "stopping": True, "detail": "bye"}, "starting", "stopping", "bye"),
    ],
)
async def test_health_is_always_200(
    make: Make, connect: Connect, state: str, changes: dict[str, object], word: str, phase: str, detail: str
) -> None:
    client = await connect(make(state, **changes))
    answer = await client.get("/health")
    document = await answer.json()
    assert answer.status == 200
    assert (document["status"], document["phase"], document["phase_detail"]) == (word, phase, detail)


async def test_all_that_health_says(make: Make, connect: Connect) -> None:
    answer = await (await connect(make("ready"))).get("/health")
    assert await answer.json() == {
        "status": "ok",
        "role": "head",
        "phase": "ready",
        "phase_detail": "every model answers",
        "engine": "vllm",
        "model": "demo",
        "models": [{"name": "demo", "engine": "vllm", "ready": True, "state": "ready", "replicas": 1, "error": ""}],
        "nodes": {"alive": 1, "expected": 2, "refused": {}},
        "version": __version__,
    }


def test_a_worker_names_its_images_engine(make: Make) -> None:
    document = module.health_document(make(role="worker", cluster=ClusterState))
    assert (document["engine"], document["model"], document["models"]) == ("vllm", None, [])


@pytest.mark.parametrize(
    ("state", "changes", "code"),
    [
        ("starting", {}, 503),
        ("half", {}, 503),
        ("ready", {}, 200),
        ("ready", {"open_doors": set()}, 503),
        ("both", {"open_doors": {0}}, 503),
        ("both", {"open_doors": {0, 1}}, 200),
        ("ready", {"stopping": True}, 503),
        ("degraded", {}, 503),
        ("failed", {}, 503),
        ("starting", {"role": "worker"}, 503),
        ("starting", {"role": "worker", "joined": True}, 200),
        ("starting", {"role": "worker", "joined": True, "stopping": True}, 503),
        ("ready", {"role": "single"}, 200),
    ],
)
async def test_ready(make: Make, connect: Connect, state: str, changes: dict[str, object], code: int) -> None:
    answer = await (await connect(make(state, **changes))).get("/ready")
    document = await answer.json()
    assert answer.status == code
    assert document["ready"] is (code == 200)
    assert {"phase", "detail", "models"} < set(document)
    assert ("Retry-After" in answer.headers) == (code == 503)


@pytest.mark.parametrize(
    ("state", "codes"),
    [("starting", [503, 503]), ("half", [200, 503]), ("both", [200, 200]), ("ready", [200, 503]), ("degraded", [503, 503])],
)
async def test_each_model_is_routable_as_soon_as_it_answers(make: Make, connect: Connect, state: str, codes: list[int]) -> None:
    status = make(state, open_doors={0, 1})
    client = await connect(status)
    assert [(await client.get(f"/routable/{number}")).status for number in (0, 1)] == codes
    assert status.open_doors == {number for number, code in enumerate(codes) if code == 200}


@pytest.mark.parametrize("path", ["/models/b", "/models/b/v1/models"])
async def test_while_another_model_answers_the_refusal_is_about_the_one_asked_for(make: Make, connect: Connect, path: str) -> None:
    answer = await (await connect(make("half"))).get(path)
    assert answer.status == 503
    assert (await answer.json())["error"]["message"] == "Model 'b' cannot answer now: waiting. GET /ready says when."


async def test_the_roll_for_who_has_the_token(make: Make, connect: Connect, manifest: Manifest) -> None:
    client = await connect(make("ready", spanning=("vllm",), tls=True))
    answer = await client.get("/cluster", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 200
    assert await answer.json() == {
        "session": "s1",
        "manifest": manifest.as_dict(),
        "stopping": False,
        "leaving": False,
        "nodes": [
            {
                "id": "1",
                "ip": "10.0.0.1",
                "alive": True,
                "role": "head",
                "replicas": 0,
                "engines": [],
                "cpus": 0,
                "gpus": 0,
                "shards": 0,
                "draining": False,
            },
            {
                "id": "2",
                "ip": "10.0.0.2",
                "alive": False,
                "role": "worker",
                "replicas": 1,
                "engines": [],
                "cpus": 0,
                "gpus": 0,
                "shards": 0,
                "draining": False,
            },
        ],
        "spanning": ["vllm"],
        "tls": True,
        "files": [],
    }


async def test_a_probe_for_who_has_the_token(make: Make, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_BYTES", 3 << 20)
    client = await connect(make("ready"))
    answer = await client.get("/probe", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status, len(await answer.read())) == (200, 3 << 20)
    assert (await client.get("/probe")).status == 401


@pytest.mark.parametrize("header", [None, "", "Bearer ", "Bearer wrong", TOKEN[:-1], f"bearer {TOKEN}", "Bearer é"])
async def test_no_roll_for_anybody_else(make: Make, connect: Connect, header: str | None) -> None:
    client = await connect(make("ready"))
    answer = await client.get("/cluster", headers={} if header is None else {"Authorization": header})
    assert answer.status == 401
    assert TOKEN not in await answer.text()
    assert "nodes" not in await answer.json()


@pytest.mark.parametrize("header", ["Bearer ", "Bearer x"])
async def test_a_head_without_a_token_lets_nobody_in(make: Make, connect: Connect, header: str) -> None:
    answer = await (await connect(make("starting", token=""))).get("/cluster", headers={"Authorization": header})
    assert answer.status in (401, 503)


async def test_a_head_that_has_no_token_yet_does_not_call_a_workers_wrong(make: Make, connect: Connect) -> None:
    answer = await (await connect(make("starting", token=""))).get("/cluster", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 503


async def test_a_token_of_odd_bytes_is_just_wrong(make: Make) -> None:
    runner = await module.listen(make("ready"), "127.0.0.1", 0)
    try:
        host, port = runner.addresses[0][:2]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /cluster HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/tokenize"),
        ("DELETE", "/v1/x/y"),
        ("OPTIONS", "/models/demo/v1/x"),
    ],
)
async def test_what_is_for_a_model_gets_openais_error(make: Make, connect: Connect, method: str, path: str) -> None:
    answer = await (await connect(make("loading"))).request(method, path, data=b"x" * 100_000)
    assert answer.status == 503
    assert answer.content_type == "application/json"
    assert int(answer.headers["Retry-After"]) > 0
    error = (await answer.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == ("service_unavailable", 503, None)
    assert "loading weights" in error["message"]


async def test_the_root_links_to_what_there_is(make: Make, connect: Connect) -> None:
    client = await connect(make("ready"))
    document = await (await client.get("/")).json()
    assert (document["name"], document["version"]) == ("ray-serve-cai", __version__)
    assert {"/health", "/ready", "/v1/models"} <= set(document["links"].values())


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        pytest.param(
            "::", ["127.0.0.1", "[::1]"], marks=pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
        ),
    ],
)
async def test_listening(make: Make, host: str, asked: list[str]) -> None:
    runner = await module.listen(make("ready"), host, 0)
    try:
        port = runner.addresses[0][1]
        for address in asked:
            async with ClientSession() as session, session.get(f"http://{address}:{port}/health") as answer:
                assert json.loads(await answer.text())["status"] == "ok"
    finally:
        await runner.cleanup()


async def test_who_waits_hears_of_nodes_that_are_refused(make: Make, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they say themselves, or by their token; what comes through the front door says nothing about a node."""
    monkeypatch.setattr(module, "LOOPBACK", ())
    status = make("waiting")
    client = await connect(status)
    said = {"reason": "no model here."}
    assert (await client.post("/refused", json=said)).status == 401
    assert "another token" in status.refusals.current()["127.0.0.1"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (await client.post("/refused", json=["x"], headers=headers)).status == 400
    assert (await client.post("/refused", json=said, headers=headers)).status == 204
    document = await (await client.get("/health")).json()
    assert document["nodes"] == {"alive": 1, "expected": 2, "refused": {"127.0.0.1": "no model here."}}
    assert document["phase_detail"] == "nodes joined 1/2; 127.0.0.1 is refused: no model here."
    monkeypatch.setattr(module, "LOOPBACK", ("127.0.0.1",))
    status.refusals = Refusals()
    await client.get("/cluster")
    assert status.refusals.current() == {}


async def test_loopback_by_an_ipv6_socket(make: Make) -> None:
    """What comes through the front door says nothing about a node, on a node with IPv6 as well."""
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    status = make("waiting")
    runner = await module.listen(status, "::", 0)
    try:
        port = runner.addresses[0][1]
        async with ClientSession() as session, session.post(f"http://127.0.0.1:{port}/refused", json={"reason": "x"}) as answer:
            assert answer.status == 401
        assert status.refusals.current() == {}
    finally:
        await runner.cleanup()


class Collected:
    """A collector that has its text."""

    async def collect(self) -> str:
        return "rscai_x 1\n"


async def test_metrics_are_for_this_node_and_for_who_has_the_token(make: Make, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await connect(make("ready", collector=Collected()))
    answer = await client.get("/metrics")
    assert (answer.status, await answer.text(), answer.headers["Content-Type"]) == (200, "rscai_x 1\n", module.CONTENT_TYPE)
    monkeypatch.setattr(module, "LOOPBACK", ())
    assert (await client.get("/metrics")).status == 401
    assert (await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status == 200
    worker = await connect(make("ready", role="worker"))
    assert (await worker.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status == 404
