"""What answers on an application's port while no front door does: always on a worker, and on a head while its launcher is not up.

The platform says that an application runs as soon as its port answers, so ``/`` answers 200 from the first second; its body has the phase.
Facts: design of applications in Cloudera AI's documentation; only 127.0.0.1:$CDSW_APP_PORT is published.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ray_serve_cai.node.frontdoor import RETRY_AFTER_S, error_json

MARK = "X-Ray-Serve-Cai-Reception"
"""A header of all answers, by which they can be told from those of the front door."""


class Reception:
    """A small server on loopback; a front door may be opened beside it on the same port before it closes.

    Args:
        document: what the node says of itself: ``phase`` and ``phase_detail`` at least.
    """

    def __init__(self, port: int, document: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        self._port = port
        self._document = document
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Listen; nothing where it listens already.

        Raises:
            OSError: another program has the port.
        """
        if self._runner:
            return
        app = web.Application()
        for path in ("/", "/health"):
            app.router.add_get(path, self._says)
        app.router.add_get("/ready", self._ready)
        app.router.add_route("*", "/{rest:.*}", self._not_here)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", self._port), reuse_port=True, backlog=128)
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Listen no more."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()

    async def _says(self, _: web.Request) -> web.Response:
        return web.json_response(await self._document(), headers={MARK: "1"})

    async def _ready(self, _: web.Request) -> web.Response:
        told = await self._document()
        ready = told.get("phase") == "joined"
        answer = {"ready": ready, "phase": told.get("phase"), "detail": told.get("phase_detail")}
        later = {} if ready else {"Retry-After": str(RETRY_AFTER_S)}
        return web.json_response(answer, status=200 if ready else 503, headers={MARK: "1"} | later)

    async def _not_here(self, _: web.Request) -> web.Response:
        told = await self._document()
        where = "Models answer at the head's address." if told.get("role") == "worker" else "GET /ready says when."
        message = f"No model answers here: {told.get('phase')} ({str(told.get('phase_detail', '')).rstrip('.')}). {where}"
        headers = {MARK: "1", "Retry-After": str(RETRY_AFTER_S)}
        return web.Response(
            text=error_json(503, message, "service_unavailable"), status=503, content_type="application/json", headers=headers
        )
