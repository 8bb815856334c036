"""The cluster's metrics in one place: Ray's and HAProxy's of every node, the engines' of every replica, and the launcher's own.

`plan` says what is asked, `own` what the launcher knows itself; `Collector` asks, and waits for nobody who does not answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ray_serve_cai.node import exposition
from ray_serve_cai.node.address import bracketed
from ray_serve_cai.node.ports import Ports
from ray_serve_cai.state import PHASES, ClusterState

TIMEOUT_S = 5.0
FRESH_S = 1.0
"""Who asks again so soon gets the same: several Prometheus servers, or somebody in a hurry, cost no more than one."""
PREFIX = "rscai"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SCOPE = "scope=frontend&scope=backend&scope=server&no-maint"
"""Of HAProxy's exporter: not what describes its process."""


@dataclass(frozen=True)
class Source:
    """Where metrics are asked for, and the labels that they get; at a Unix socket where there is one."""

    url: str
    labels: Mapping[str, str]
    socket: Path | None = None


def plan(cluster: ClusterState, ports: Ports, door: Path) -> list[Source]:
    """What is asked of a cluster as the head sees it; ``door`` is the front door's socket for this. Pure."""
    sources = [Source(f"http://door/metrics?{_SCOPE}", {"haproxy": "front door"}, door)]
    for node in cluster.nodes:
        if node.alive:
            at = bracketed(node.ip)
            sources.append(Source(f"http://{at}:{ports.metrics_export}/metrics", {"node": node.ip}))
            sources.append(Source(f"http://{at}:{ports.haproxy_metrics}/metrics?{_SCOPE}", {"node": node.ip, "haproxy": "ray"}))
    for one in cluster.replicas:
        url = f"http://{bracketed(one.ip)}:{one.port}{one.prefix.rstrip('/')}/metrics"
        sources.append(Source(url, {"model": one.model, "replica": one.id, "node": one.ip}))
    return sources


def own(cluster: ClusterState, answered: Iterable[tuple[Source, bool]]) -> str:
    """What the launcher knows itself, and which sources answered. Pure."""
    nodes = [({"node": node.ip, "role": node.role}, node) for node in cluster.nodes]
    models = [({"model": model.name, "engine": model.engine}, model) for model in cluster.models]
    parts: list[tuple[str, str, list[tuple[Mapping[str, str], float]]]] = [
        ("phase", "1 for the phase that the cluster is in.", [({"phase": one}, float(one == cluster.phase)) for one in PHASES]),
        ("nodes_expected", "Nodes that are waited for before anything is deployed.", [({}, float(cluster.expected))]),
        ("node_alive", "Whether the head counts the node.", [(labels, float(node.alive)) for labels, node in nodes]),
        ("node_draining", "Whether the node is about to leave.", [(labels, float(node.draining)) for labels, node in nodes]),
        ("node_gpus", "GPUs that the node offers.", [(labels, node.gpus) for labels, node in nodes]),
        ("node_replicas", "Replicas with their first rank on the node.", [(labels, float(node.replicas)) for labels, node in nodes]),
        ("model_ready", "Whether the model answers.", [(labels, float(model.ready)) for labels, model in models]),
        ("model_replicas", "Running replicas of the model.", [(labels, float(model.replicas)) for labels, model in models]),
        ("source_up", "Whether metrics were got from there.", [(dict(one.labels), float(up)) for one, up in answered]),
    ]
    return "".join(exposition.gauge(f"{PREFIX}_{name}", meaning, samples) for name, meaning, samples in parts)


def named(text: str, cluster: ClusterState) -> str:
    """The front door's metrics with the names of models beside those of its backends. Pure."""
    for number, model in enumerate(cluster.models):
        text = text.replace(f'proxy="model{number}"', f'proxy="model{number}",model="{exposition.escaped(model.name)}"')
    return text


class Collector:
    """Asks all sources at once; ``cluster`` gives the latest state."""

    def __init__(self, cluster: Callable[[], ClusterState], ports: Ports, door: Path) -> None:
        self._cluster, self._ports, self._door = cluster, ports, door
        self._asking = asyncio.Lock()
        self._made, self._text = -FRESH_S, ""

    async def collect(self) -> str:
        """The exposition of the whole."""
        async with self._asking:
            if time.monotonic() - self._made > FRESH_S:
                self._text, self._made = await self._collect(), time.monotonic()
            return self._text

    async def _collect(self) -> str:
        cluster = self._cluster()
        sources = plan(cluster, self._ports, self._door)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.UnixConnector(str(self._door))) as here,
        ):
            told = await asyncio.gather(*(_ask(here if source.socket else session, source) for source in sources))
        answered = [(source, text is not None) for source, text in zip(sources, told, strict=True)]
        found = [
            (source.labels, named(text, cluster) if source.socket else text)
            for source, text in zip(sources, told, strict=True)
            if text is not None
        ]
        return await asyncio.to_thread(exposition.merge, [({}, own(cluster, answered)), *found])


async def _ask(session: aiohttp.ClientSession, source: Source) -> str | None:
    try:
        async with session.get(source.url) as answer:
            return await answer.text(errors="replace") if answer.status == 200 else None
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
        return None
