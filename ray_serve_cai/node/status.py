"""The launcher's status server: health, readiness, and, for workers that have the token, the cluster's roll."""

from __future__ import annotations

import contextlib
import hmac
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from ray_serve_cai import __version__
from ray_serve_cai.node.frontdoor import RETRY_AFTER_S, error_json
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.node.metrics import CONTENT_TYPE, Collector
from ray_serve_cai.node.refusals import Refusals
from ray_serve_cai.state import ClusterState, models_path

LOOPBACK = ("127.0.0.1", "::1")
"""Whence the front door asks, for somebody who asked it."""
PROBE_BYTES = 256 << 20
"""What a node with the token may download to measure the way; it stops when it has seen enough."""


@dataclass
class NodeStatus:
    """What the launcher knows of its own node; changed by the supervisor, read by the server.

    Attributes:
        cluster: reads the head's latest state.
        session: new at every start of a head.
        joined: of a worker: whether the head counts it.
        stopping: it was told to stop, and lets streams end.
        drained: they have ended.
        refused: why a worker may not join.
        spanning: engines of which the head serves replicas that span nodes.
        tls: whether Ray uses TLS.
        open_doors: the models, by number, of which the front door was told last that requests can go to them.
        collector: of a head: gathers the cluster's metrics.
        refusals: the nodes that a head did not let in.
    """

    role: str
    manifest: Manifest
    cluster: Callable[[], ClusterState]
    session: str = ""
    token: str = ""
    joined: bool = False
    stopping: bool = False
    drained: bool = False
    detail: str = ""
    refused: str = ""
    spanning: tuple[str, ...] = ()
    tls: bool = False
    open_doors: set[int] = field(default_factory=set)
    collector: Collector | None = None
    refusals: Refusals = field(default_factory=Refusals)

    def ready(self) -> bool:
        """Whether the node does what it is there for."""
        if self.stopping:
            return False
        if self.role == "worker":
            return self.joined
        cluster = self.cluster()
        return cluster.ready and self.open_doors.issuperset(range(len(cluster.models)))


def health_document(status: NodeStatus) -> dict[str, Any]:
    """What ``GET /health`` answers."""
    cluster = status.cluster()
    refused = status.refusals.current({node.ip for node in cluster.nodes if node.alive})
    if status.role == "worker":
        phase = "stopping" if status.stopping else "joined" if status.joined else "refused" if status.refused else "joining"
        word = {"joined": "ok", "refused": "failed"}.get(phase, "starting")
        detail = status.refused if phase == "refused" else status.detail
    else:
        phase, detail = ("stopping", "no new requests") if status.stopping else (cluster.phase, cluster.detail)
        if refused and phase == "waiting for nodes":
            detail += "".join(f"; {ip} is refused: {reason}" for ip, reason in refused.items())
        word = {"ready": "ok", "degraded": "degraded", "failed": "failed", "stopping": "stopping"}.get(phase, "starting")
    first = cluster.models[0] if cluster.models else None
    return {
        "status": word,
        "role": status.role,
        "phase": phase,
        "phase_detail": detail,
        "engine": first.engine if first else status.manifest.engine,
        "model": first.name if first else None,
        "models": [asdict(model) for model in cluster.models],
        "nodes": {"alive": cluster.alive, "expected": cluster.expected, "refused": refused},
        "version": __version__,
    }


def ready_document(status: NodeStatus) -> dict[str, Any]:
    """What ``GET /ready`` answers, with 200 or 503."""
    health = health_document(status)
    return {"ready": status.ready(), "phase": health["phase"], "detail": health["phase_detail"], "models": health["models"]}


def refusal(status: NodeStatus, path: str) -> str:
    """Why the model that a request's path leads to cannot answer."""
    models = status.cluster().models
    if any(model.ready for model in models):
        asked = next((model for model in models if f"{path}/".startswith(f"{models_path(model.name)}/")), models[0])
        return f"Model {asked.name!r} cannot answer now: {(asked.error or asked.state).rstrip('.')}. GET /ready says when."
    health = health_document(status)
    return f"No model can answer yet: {health['phase']} ({health['phase_detail'].rstrip('.')}). GET /ready says when."


def roll(status: NodeStatus) -> dict[str, Any]:
    """What ``GET /cluster`` tells a worker: whom it would join, and who is there."""
    return {
        "session": status.session,
        "manifest": status.manifest.as_dict(),
        "stopping": status.drained,
        "leaving": status.stopping,
        "spanning": list(status.spanning),
        "tls": status.tls,
        "nodes": [asdict(node) for node in status.cluster().nodes],
        "files": [asdict(one) for one in status.cluster().files],
    }


def application(status: NodeStatus) -> web.Application:
    """The server's routes; whatever else reaches it came for a model that cannot answer yet."""

    async def root(_: web.Request) -> web.Response:
        links = {"health": "/health", "ready": "/ready", "models": "/v1/models", "chat": "/v1/chat/completions"}
        return web.json_response({"name": "ray-serve-cai", "version": __version__, "links": links})

    async def health(_: web.Request) -> web.Response:
        return web.json_response(health_document(status))

    async def ready(_: web.Request) -> web.Response:
        document = ready_document(status)
        if document["ready"]:
            return web.json_response(document)
        return web.json_response(document, status=503, headers={"Retry-After": str(RETRY_AFTER_S)})

    async def routable(request: web.Request) -> web.Response:
        number, models = int(request.match_info["number"]), status.cluster().models
        if number < len(models) and models[number].ready:
            status.open_doors.add(number)
            return web.Response()
        status.open_doors.discard(number)
        return web.Response(status=503)

    def stranger(request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not status.token:
            return web.json_response({"error": "the head has no token yet"}, status=503)
        if not hmac.compare_digest(sent.encode(errors="surrogateescape"), status.token.encode()):
            _note(status, request, "it has another token, or none; give all nodes the same RSCAI_TOKEN or RSCAI_TOKEN_FILE")
            return web.json_response({"error": "this cluster has another token"}, status=401)
        return None

    async def cluster(request: web.Request) -> web.Response:
        return stranger(request) or web.json_response(roll(status))

    async def refused(request: web.Request) -> web.Response:
        strange = stranger(request)
        if strange:
            return strange
        try:
            reason = str((await request.json())["reason"])
        except (ValueError, TypeError, KeyError):
            return web.json_response({"error": "send an object with a reason"}, status=400)
        _note(status, request, reason)
        return web.Response(status=204)

    async def probe(request: web.Request) -> web.StreamResponse:
        strange = stranger(request)
        if strange:
            return strange
        answer = web.StreamResponse()
        answer.content_length = PROBE_BYTES
        await answer.prepare(request)
        block = bytes(1 << 20)
        with contextlib.suppress(ConnectionError):
            for _ in range(PROBE_BYTES // len(block)):
                await answer.write(block)
        return answer

    async def metrics(request: web.Request) -> web.Response:
        strange = None if request.remote in LOOPBACK else stranger(request)
        if strange or status.collector is None:
            return strange or web.json_response({"error": "the head has the cluster's metrics"}, status=404)
        return web.Response(body=(await status.collector.collect()).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def not_yet(request: web.Request) -> web.Response:
        return web.Response(
            status=503,
            text=error_json(503, refusal(status, request.path), "service_unavailable"),
            content_type="application/json",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/", root)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    app.router.add_get(r"/routable/{number:\d+}", routable)
    app.router.add_get("/cluster", cluster)
    app.router.add_get("/probe", probe)
    app.router.add_get("/metrics", metrics)
    app.router.add_post("/refused", refused)
    app.router.add_route("*", "/{rest:.*}", not_yet)
    return app


def _note(status: NodeStatus, request: web.Request, reason: str) -> None:
    caller = (request.remote or "").removeprefix("::ffff:")  # an IPv6 socket's name for an IPv4 address
    if caller and caller not in LOOPBACK:
        status.refusals.note(caller, reason)


async def listen(status: NodeStatus, host: str, port: int) -> web.AppRunner:
    """Start the server; ``cleanup()`` of what is returned ends it."""
    runner = web.AppRunner(application(status), access_log=None)
    await runner.setup()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")  # asyncio's own would take IPv6 alone
    await web.SockSite(runner, listener).start()
    return runner
