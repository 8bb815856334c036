"""One address for several models, where the front door cannot tell which of them is asked: long bodies, forms, adapters, the list.

A request is read whole, since its model may stand at the end; what comes back is passed on as it comes, byte for byte. The front door
(node/frontdoor.py) sends here what it cannot read, and has each model below its own path on a socket that only this process uses.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from ray_serve_cai import state
from ray_serve_cai.engines.refusals import Refusal
from ray_serve_cai.serving.model_in_body import model_in
from ray_serve_cai.serving.passing import NO_ANSWER, passed_on, relay, session_at

logger = logging.getLogger(__name__)

AGAIN_S = 0.25
"""After a request that nobody answered; a replica that died is out of the way by then."""
LIST_S = 10.0
KNOWN_S = 5.0
"""How long a model's own list of names, its adapters among them, is believed."""
ADAPTER = ":"
"""SGLang's clients name an adapter as ``model:adapter``."""
LONGEST_HEADER = 1 << 16
"""The front door's own limit."""
BACKLOG = 4096
"""Connections that may wait to be taken; the front door turns requests away where they cannot."""


@dataclass(frozen=True)
class Settings:
    """Where the gateway listens, where it finds the models, what tells it their names, and how long a body may be, bytes."""

    socket: Path
    models: Path
    state_file: Path
    max_body: int


@dataclass
class Adapters:
    """Names that models list beside their own, by the model; ``read`` by time.monotonic()."""

    models: dict[str, str] = field(default_factory=dict)
    read: float = -KNOWN_S

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.read < KNOWN_S


class Gateway:
    """The requests' way; ``names`` gives the models as they are now, the first one first."""

    def __init__(self, session: aiohttp.ClientSession, names: Callable[[], Sequence[str]], max_body: int) -> None:
        self._session, self._names = session, names
        self._max_body = max_body
        self._adapters = Adapters()

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application(client_max_size=self._max_body)
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_get("/v1/models/{name:.+}", self.one_model)
        app.router.add_route("*", "/{rest:.*}", self.pass_on)
        return app

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        """All models that answer, each with its own fields; where none does, what the first one says."""
        listed, refused = await self._lists(request.headers)
        if not listed and refused is not None:
            return refused
        data = [entry for entries in listed.values() for entry in entries]
        return web.json_response({"object": "list", "data": data})

    async def one_model(self, request: web.Request) -> web.StreamResponse:
        """The entry of one name."""
        name = request.match_info["name"]
        listed, refused = await self._lists(request.headers)
        for entries in listed.values():
            for entry in entries:
                if entry.get("id") == name:
                    return web.json_response(entry)
        return refused if not listed and refused is not None else answer(self._unknown(name), request.path)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Any other request, to the model that it names, or else to the first."""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return answer(self._too_long(), request.path)
        except web.HTTPException as error:  # a body in an encoding that nobody can read
            return answer(Refusal(error.status, "invalid_request_error", error.text or error.reason), request.path)
        name = model_in(request.headers.get("Content-Type", ""), body)
        model = await self._model(name, request.headers) if name is not None else self._first()
        if model is None:
            return answer(self._unknown(name or ""), request.path)
        return await self._forward(request, _below(model), body)

    async def _forward(self, request: web.Request, prefix: str, body: bytes) -> web.StreamResponse:
        """Send a request, once more where nobody answered, and pass the answer on from its first byte."""
        url = URL(f"http://models{prefix}{request.rel_url.raw_path_qs}", encoded=True)
        headers = passed_on(request.headers)
        for last in (False, True):
            if last:
                await asyncio.sleep(AGAIN_S)
            try:
                data = io.BytesIO(body) if body else None  # which is sent in pieces
                async with self._session.request(request.method, url, headers=headers, data=data, allow_redirects=False) as found:
                    if NO_ANSWER not in found.headers or last:
                        return await relay(request, found)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                logger.warning("%s: no answer (%s: %s)%s", prefix, type(error).__name__, error, "" if last else "; it is asked once more")
        return answer(Refusal(503, "service_unavailable", "The model stopped answering; try again.", retry_after_s=5), request.path)

    def _first(self) -> str:
        names = self._names()
        return names[0] if names else ""

    async def _model(self, name: str, headers: Mapping[str, str]) -> str | None:
        """The model of a name, its own or an adapter's; "" where the first may say what it thinks of it, None where nobody has it."""
        names = self._names()
        if name in names:
            return name
        before, adapter, _ = name.partition(ADAPTER)
        if adapter and before in names:
            return before
        if not names:
            return ""
        if not self._adapters.fresh or name not in self._adapters.models:
            listed, _ = await self._lists(headers)
            if not listed:
                return names[0]  # which says why: a key that is missing, or that it does not answer yet
            found = {str(entry["id"]): model for model, entries in listed.items() for entry in entries if "id" in entry}
            self._adapters = Adapters(found, time.monotonic())
        return self._adapters.models.get(name)

    async def _lists(self, headers: Mapping[str, str]) -> tuple[dict[str, list[dict[str, Any]]], web.Response | None]:
        """What each model lists that answers, in their order, and what the first other one says."""
        names = self._names() or [""]
        asked = await asyncio.gather(*(self._list(name, headers) for name in names))
        listed = {name: found for name, found in zip(names, asked, strict=True) if not isinstance(found, web.Response)}
        return listed, next((found for found in asked if isinstance(found, web.Response)), None)

    async def _list(self, name: str, headers: Mapping[str, str]) -> list[dict[str, Any]] | web.Response:
        url = URL(f"http://models{_below(name)}/v1/models", encoded=True)
        try:
            async with self._session.get(url, headers=passed_on(headers), timeout=aiohttp.ClientTimeout(total=LIST_S)) as found:
                body = await found.read()
                if found.status == 200:
                    return [entry for entry in json.loads(body)["data"] if isinstance(entry, dict)]
                return web.Response(status=found.status, body=body, headers=passed_on(found.headers))
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError, TypeError) as error:
            logger.warning("the models of %s cannot be listed: %s: %s", name, type(error).__name__, error)
            refusal = Refusal(503, "service_unavailable", f"Model {name!r} did not list its models; try again.", retry_after_s=5)
            return answer(refusal, "/v1/models")

    def _unknown(self, name: str) -> Refusal:
        there = ", ".join(self._names()) or "none yet"
        return Refusal(404, "invalid_request_error", f"The model {name[:200]!r} does not exist; there are: {there}.", param="model")

    def _too_long(self) -> Refusal:
        limit = self._max_body >> 20
        return Refusal(413, "invalid_request_error", f"The request body is too large; the limit is {limit} MiB.")


def _below(model: str) -> str:
    """Where a model is; nowhere in particular where there is none yet."""
    return state.models_path(model) if model else ""


def answer(refusal: Refusal, path: str) -> web.Response:
    """An error of the gateway's own."""
    headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s is not None else None
    return web.json_response(refusal.document(path), status=refusal.status, headers=headers)


class StateOfModels:
    """Their names, read anew whenever the serving process has written its state."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._names: tuple[str, ...] = ()

    def __call__(self) -> Sequence[str]:
        with suppress(OSError):
            stat = os.stat(self._file)
            if (stat.st_mtime_ns, stat.st_ino) != self._seen:
                self._seen = stat.st_mtime_ns, stat.st_ino
                self._names = tuple(model.name for model in state.read(self._file).models)
        return self._names


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each form that is none
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings.socket.unlink(missing_ok=True)
    async with session_at(settings.models) as session:
        gateway = Gateway(session, StateOfModels(settings.state_file), settings.max_body)
        runner = await listen(gateway, settings.socket)
        logger.info("requests whose model the front door cannot read find it through %s", settings.socket)
        await stop.wait()
        await runner.cleanup()


async def listen(gateway: Gateway, socket: Path) -> web.AppRunner:
    """Start answering at a socket; a client that leaves ends its request, and with it the engine's work."""
    runner = web.AppRunner(
        gateway.application(),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        max_line_size=LONGEST_HEADER,
        max_field_size=LONGEST_HEADER,
    )
    await runner.setup()
    await web.UnixSite(runner, str(socket), backlog=BACKLOG).start()
    socket.chmod(0o600)
    return runner
