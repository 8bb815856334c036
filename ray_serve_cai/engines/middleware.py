"""What a replica adds around the engine's own HTTP application: any prefix, ``GET /health``, one refusal, the client's own ids.

One pure ASGI layer that looks at a request once, and never at its body or at what streams back.
"""

from __future__ import annotations

import json

from ray_serve_cai.engines.base import ASGIApp, LLMEngineProtocol, Receive, Scope, Send
from ray_serve_cai.engines.engine_config import EngineConfig

NO_ID = b"x-rscai-no-request-id"
"""The front door marks requests whose client named no id (node/frontdoor.py)."""


def around(app: ASGIApp, engine: LLMEngineProtocol, config: EngineConfig) -> ASGIApp:
    """The replica's application.

    Serve leaves a route prefix in ``path`` and names it in ``root_path``; engines expect neither, so both are taken off. Serve
    also gives every request an ``x-request-id``, which engines prefer to the id that a client has put into the body.
    """
    refused = config.info.one_replica_paths if config.replicas > 1 else ()

    async def replica(scope: Scope, receive: Receive, send: Send) -> None:
        prefix = scope.get("root_path", "")
        if prefix and scope["type"] in ("http", "websocket") and scope["path"].startswith(prefix):
            scope = {**scope, "root_path": "", "path": scope["path"][len(prefix) :] or "/", "raw_path": None}
        if scope["type"] == "http":
            if scope["path"] == "/health":
                await health(engine, config, send)
                return
            if any(scope["path"] == path or scope["path"].startswith(f"{path}/") for path in refused):
                await refuse(scope["path"], config, send)
                return
            if any(name == NO_ID for name, _ in scope["headers"]):
                scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in (NO_ID, b"x-request-id")]}
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


async def refuse(path: str, config: EngineConfig, send: Send) -> None:
    """409 for a request that would change one of several replicas, in OpenAI's error shape."""
    message = (
        f"{path} changes only the replica that it reaches, and model {config.name!r} has {config.replicas} replicas; "
        "put adapters into the configuration (engine_args), so that every replica loads them, or serve one replica."
    )
    await respond(send, 409, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": 409}})


async def respond(send: Send, status: int, document: object) -> None:
    """A whole JSON answer."""
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
