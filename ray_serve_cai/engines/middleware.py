"""What a replica adds around the engine's own HTTP application: any prefix, ``GET /health``, its limits, the client's own ids.

One pure ASGI layer that looks at a request once, and never at its body or at what streams back.
"""

from __future__ import annotations

from ray_serve_cai.engines.base import ASGIApp, LLMEngineProtocol, Receive, Scope, Send
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.gate import Gate
from ray_serve_cai.engines.refusals import Refusal, respond
from ray_serve_cai.errors import counted

NO_ID = b"x-rscai-no-request-id"
"""The front door marks requests whose client named no id (node/frontdoor.py)."""
FREEING = ("/cancel", "/abort_request")
"""Ends of paths whose requests end others; they need no place, and make one."""


def around(app: ASGIApp, engine: LLMEngineProtocol, config: EngineConfig, gate: Gate | None = None) -> ASGIApp:
    """The replica's application; ``gate`` is the replica's, which may be told other limits, and by default one of the configuration's.

    Serve leaves a route prefix in ``path`` and names it in ``root_path``; engines expect neither, so both are taken off. Serve
    also gives every request an ``x-request-id``, which engines prefer to the id that a client has put into the body.
    What is posted takes a place at the gate; what is only read, the engine's metrics among it, is answered even at the limit.
    """
    gate, changing = gate or Gate(config.limits), config.info.one_replica_paths

    async def replica(scope: Scope, receive: Receive, send: Send) -> None:
        prefix = scope.get("root_path", "")
        if prefix and scope["type"] in ("http", "websocket") and scope["path"].startswith(prefix):
            scope = {**scope, "root_path": "", "path": scope["path"][len(prefix) :] or "/", "raw_path": None}
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = scope["path"]
        if path == "/health":
            await health(engine, config, send)
            return
        if not gate.limits.alone and any(path == one or path.startswith(f"{one}/") for one in changing):
            await one_of_several(path, config).answer(path, send)
            return
        if any(name == NO_ID for name, _ in scope["headers"]):
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in (NO_ID, b"x-request-id")]}
        if scope["method"] != "POST" or path.endswith(FREEING):
            await app(scope, receive, send)
        elif gate.is_full():
            await too_many(gate, config).answer(path, send)
        else:
            async with gate.place():
                await app(scope, receive, send)

    return replica


async def health(engine: LLMEngineProtocol, config: EngineConfig, send: Send) -> None:
    """200 while the engine works, 503 with the reason when it does not."""
    document = {"status": "healthy", "engine": config.engine, "model": config.name}
    try:
        await engine.check_health()
    except Exception as error:  # an engine's own errors have no common base; each of them means the same here
        await respond(send, 503, document | {"status": "unhealthy", "detail": f"{type(error).__name__}: {error}"})
        return
    await respond(send, 200, document)


def one_of_several(path: str, config: EngineConfig) -> Refusal:
    """For a request that would change one of several replicas."""
    message = (
        f"{path} changes only the replica that it reaches, and model {config.name!r} may have several; "
        "put adapters into the configuration (engine_args), so that every replica loads them, or serve one replica."
    )
    return Refusal(409, "invalid_request_error", message)


def too_many(gate: Gate, config: EngineConfig) -> Refusal:
    """For a request beyond what the replica works on and what may wait."""
    limits, later = gate.limits, gate.retry_after_s()
    message = (
        f"Model {config.name!r} is at its limit: {counted(limits.max_concurrent, 'request')} at a time, {limits.max_queued} waiting; "
        f"try again in {later} s."
    )
    return Refusal(503, "service_unavailable", message, retry_after_s=later)
