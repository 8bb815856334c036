"""Pods that try the ways to each other."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ray_serve_cai.cai import crossing
from ray_serve_cai.cai.crossing import Crossing
from ray_serve_cai.errors import UnavailableError
from ray_serve_cai.node.address import Address

pytestmark = pytest.mark.issue(9)
TOKEN = "t" * 48


@asynccontextmanager
async def node(directory: Path, name: str, token: str = TOKEN) -> AsyncIterator[Crossing]:
    made = Crossing(directory, name, "127.0.0.1", token)
    await made.open()
    yield made
    await made.close()


@asynccontextmanager
async def other(behaves: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Address]:
    """A program that is no node, or a node behind something."""
    running: list[asyncio.Task[None]] = []

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.append(asyncio.ensure_future(behaves(reader, writer)))

    server = await asyncio.start_server(start, "127.0.0.1")
    yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()
    await asyncio.gather(*running)  # each sees that the other side left


async def test_both_ways_work_and_are_measured(tmp_path: Path) -> None:
    async with node(tmp_path, "a") as a, node(tmp_path, "b") as b:
        assert list(a.peers()) == ["b"]
        (peer,) = b.peers().items()
        measured = await b.check(*peer)
        assert str(measured).startswith(f"a at {peer[1]} is reached, and reaches this node: 32 MiB in ")
    assert list(tmp_path.iterdir()) == []


async def test_nodes_of_former_lives_are_not_asked(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    async with node(tmp_path, "a"), node(tmp_path, "b") as b:
        past = (tmp_path / "b.json").stat().st_mtime - crossing.FRESH_S - 1
        os.utime(tmp_path / "a.json", (past, past))
        assert b.peers() == {}


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mesh that waits for the client's first word."""
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


async def web(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def closed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("behaves", "words"),
    [(silent, "no word, or not all data, within"), (web, "another program answers there"), (closed, "ended before a word was said")],
)
async def test_a_way_that_does_not_work(
    tmp_path: Path,
    behaves: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crossing, "TIMEOUT_S", 1.0)
    async with node(tmp_path, "a") as a, other(behaves) as address:
        with pytest.raises(UnavailableError, match=words) as caught:
            await a.check("b", address)
    assert f"this node does not reach b at {address}" in str(caught.value)
    assert "nodes_per_replica: 1" in str(caught.value)


async def test_a_way_back_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node(tmp_path, "a") as a, node(tmp_path, "b") as b, other(closed) as nowhere:
        monkeypatch.setattr(a, "_port", nowhere.port)
        with pytest.raises(UnavailableError, match="does not reach this node as ranks of one replica must: the connection ended"):
            await a.check("b", a.peers()["b"])
        assert b.peers()


async def test_who_has_another_token_gets_no_data(tmp_path: Path) -> None:
    async with node(tmp_path, "a"), node(tmp_path, "b", "another" * 8) as b:
        with pytest.raises(UnavailableError):
            await b.check("a", b.peers()["a"])
