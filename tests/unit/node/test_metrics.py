"""The cluster's metrics, gathered from servers that stand for nodes, replicas and the front door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from ray_serve_cai.node import metrics
from ray_serve_cai.node.metrics import Collector, Source
from ray_serve_cai.node.ports import Ports
from ray_serve_cai.state import ClusterState, ModelState, NodeState, ReplicaState
from tests.containers import free_port

pytestmark = pytest.mark.issue(10)
NODES = (
    NodeState("1", "10.0.0.1", True, role="head"),
    NodeState("2", "fd00::2", True, role="worker", gpus=8),
    NodeState("3", "10.0.0.3", False),
)
MODELS = (ModelState("a", "vllm", ready=True, state="ready", replicas=1), ModelState("b", "sglang"))
CLUSTER = ClusterState(
    phase="degraded",
    models=MODELS,
    nodes=NODES,
    replicas=(ReplicaState("a", "r1", "10.0.0.1", 30000), ReplicaState("b", "r2", "fd00::2", 30001, "/models/b")),
)


def test_what_is_asked() -> None:
    sources = metrics.plan(CLUSTER, Ports(), Path("/x"))
    assert [(one.url.partition("?")[0], dict(one.labels)) for one in sources] == [
        ("http://door/metrics", {"haproxy": "front door"}),
        ("http://10.0.0.1:6384/metrics", {"node": "10.0.0.1"}),
        ("http://10.0.0.1:9101/metrics", {"node": "10.0.0.1", "haproxy": "ray"}),
        ("http://[fd00::2]:6384/metrics", {"node": "fd00::2"}),
        ("http://[fd00::2]:9101/metrics", {"node": "fd00::2", "haproxy": "ray"}),
        ("http://10.0.0.1:30000/metrics", {"model": "a", "replica": "r1", "node": "10.0.0.1"}),
        ("http://[fd00::2]:30001/models/b/metrics", {"model": "b", "replica": "r2", "node": "fd00::2"}),
    ]


def test_what_the_launcher_knows_itself() -> None:
    lines = metrics.own(CLUSTER, [(Source("u", {"node": "10.0.0.1"}), False)]).splitlines()
    for line in (
        'rscai_phase{phase="degraded"} 1',
        'rscai_phase{phase="ready"} 0',
        'rscai_node_alive{node="10.0.0.3",role=""} 0',
        'rscai_node_gpus{node="fd00::2",role="worker"} 8',
        'rscai_model_ready{model="a",engine="vllm"} 1',
        'rscai_model_replicas{model="b",engine="sglang"} 0',
        'rscai_source_up{node="10.0.0.1"} 0',
        "rscai_nodes_expected 1",
    ):
        assert line in lines


@asynccontextmanager
async def serving(site: object, text: str, asked: list[str], status: int = 200) -> AsyncIterator[None]:
    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text=text, status=status)

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await (web.UnixSite(runner, str(site)) if isinstance(site, Path) else web.TCPSite(runner, "127.0.0.1", int(str(site)))).start()
    yield
    await runner.cleanup()


def test_the_whole_of_who_answers(tmp_path: Path) -> None:
    door, port, broken = tmp_path / "door", free_port(), free_port()
    nodes = (NodeState("1", "127.0.0.1", True, role="head"),)
    replicas = (
        ReplicaState("m", "r1", "127.0.0.1", port),
        ReplicaState("m", "r2", "127.0.0.1", broken),
        ReplicaState("m", "r3", "127.0.0.1", free_port()),
    )
    ports = Ports(metrics_export=free_port(), haproxy_metrics=free_port())
    state = ClusterState(models=MODELS[:1], nodes=nodes, replicas=replicas)
    asked: list[str] = []

    async def collect() -> tuple[str, str]:
        collector = Collector(lambda: state, ports, door)
        async with (
            serving(door, 'haproxy_x{proxy="model0"} 1\n', asked),
            serving(ports.metrics_export, "ray_x 2\n", asked),
            serving(port, "# TYPE vllm:x counter\nvllm:x 3\n", asked),
            serving(broken, "no 4\n", asked, status=500),
        ):
            one, other = await asyncio.gather(collector.collect(), collector.collect())
            return one, other

    one, other = asyncio.run(collect())
    assert one == other
    assert len(asked) == 4, "who asks at the same time gets the same"
    for line in (
        'haproxy_x{haproxy="front door",proxy="model0",model="a"} 1',
        'ray_x{node="127.0.0.1"} 2',
        'vllm:x{model="m",replica="r1",node="127.0.0.1"} 3',
        'rscai_source_up{model="m",replica="r1",node="127.0.0.1"} 1',
        'rscai_source_up{model="m",replica="r2",node="127.0.0.1"} 0',
        'rscai_source_up{model="m",replica="r3",node="127.0.0.1"} 0',
        'rscai_source_up{node="127.0.0.1",haproxy="ray"} 0',
    ):
        assert line in one.splitlines()
    assert "no{" not in one
