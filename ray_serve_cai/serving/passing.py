"""How a request and its answer are passed on without a change: the headers of one connection stay there, bytes go as they come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

logger = logging.getLogger(__name__)

NOT_PASSED_ON = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect")
)
"""Headers of one connection (RFC 9110, section 7.6.1), and what this end has answered itself."""
NO_ANSWER = "x-rscai-no-answer"
"""The front door's mark on an answer that it made, because nothing behind it answered."""


def passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Headers without those that belong to one connection, or to the length of what is read. Pure."""
    kept: CIMultiDict[str] = CIMultiDict(headers)
    named = {one.strip().lower() for value in kept.getall("Connection", []) for one in value.split(",")}
    for name in {*NOT_PASSED_ON, *named, "content-length", NO_ANSWER}:
        kept.popall(name, None)
    return kept


async def relay(request: web.Request, found: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass an answer on as it comes. Where it breaks off, so does this one: nobody may take half of an answer for the whole."""
    made = web.StreamResponse(status=found.status, reason=found.reason, headers=passed_on(found.headers))
    if (length := found.headers.get("Content-Length")) is not None:
        made.content_length = int(length)
    try:
        await made.prepare(request)
        async for chunk in found.content.iter_any():
            await made.write(chunk)
        await made.write_eof()
    except (aiohttp.ClientError, ConnectionError) as error:
        logger.info("%s %s broke off: %s: %s", request.method, request.path, type(error).__name__, error)
        if request.transport is not None:
            request.transport.abort()
    return made


def session_at(models: Path) -> aiohttp.ClientSession:
    """A client of whatever listens at a socket, that changes nothing of what it carries."""
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(str(models), limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        auto_decompress=False,
        read_bufsize=1 << 16,
    )
