"""The load generator against a server whose every chunk is known."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, islice

import pytest

from tests.bench import load
from tests.bench.load import drive, messages
from tests.bench.wire import WireError

TOKENS = 6
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(tokens: int) -> bytes:
    return b"data: " + json.dumps({"usage": {"completion_tokens": tokens}}).encode() + b"\n\n"


class Fake:
    """Answers each request with ``per_chunk`` tokens in a chunk, each chunk in a write of its own after a turn of the loop."""

    def __init__(self, per_chunk: int, pause_s: float = 0.0, head: bytes = HEAD) -> None:
        self.per_chunk, self.pause_s, self.head = per_chunk, pause_s, head
        self.connections = 0
        self.bodies: list[dict[str, object]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                self.bodies.append(json.loads(await reader.readexactly(length)))
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has all that it wanted
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.head)
        for first in range(1, TOKENS + 1, self.per_chunk):
            await asyncio.sleep(self.pause_s)
            content = b"".join(event(number) for number in range(first, min(first + self.per_chunk, TOKENS + 1)))
            writer.write(b"%x\r\n%s\r\n" % (len(content), content))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    @asynccontextmanager
    async def port(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await server.wait_closed()


@pytest.mark.parametrize(("per_chunk", "chunks"), [(1, 6), (4, 2), (6, 1)])
async def test_counts_chunks_and_tokens(per_chunk: int, chunks: int) -> None:
    fake = Fake(per_chunk)
    async with fake.port() as port:
        run = await drive("127.0.0.1", port, list(islice(messages("box", "demo", TOKENS, count(7)), 9)), 3)
    assert len(run.samples) == 9
    assert run.tokens == 9 * TOKENS
    assert {(each.tokens, each.events, each.token_chunks, each.chunks) for each in run.samples} == {(TOKENS, TOKENS, chunks, chunks)}
    assert fake.connections == 3, "one connection per stream, kept alive"


async def test_times_are_plausible() -> None:
    async with Fake(1, pause_s=0.01).port() as port:
        run = await drive("127.0.0.1", port, list(islice(messages("box", "demo", TOKENS, count()), 2)), 1)
    for each in run.samples:
        assert 0 < each.ttft < run.wall_s
        assert each.ttft + sum(each.gaps) < run.wall_s
        assert len(each.gaps) == TOKENS - 1
        assert min(each.gaps) >= 0


async def test_every_request_asks_for_exactly_so_many_tokens_and_has_a_prompt_of_its_own() -> None:
    fake = Fake(6)
    async with fake.port() as port:
        await drive("127.0.0.1", port, list(islice(messages("box", "demo", 64, count()), 4)), 2)
    assert all(body["max_tokens"] == body["min_tokens"] == 64 and body["ignore_eos"] and body["stream"] for body in fake.bodies)
    assert len({json.dumps(body["messages"])[:40] for body in fake.bodies}) == 4


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n", "not chunked"),
        (b"HTTP/1.1 500 Error\r\nTransfer-Encoding: chunked\r\n\r\n", "status 500"),
    ],
)
async def test_a_failed_request_fails_the_run(head: bytes, message: str) -> None:
    async with Fake(1, head=head).port() as port:
        with pytest.raises(WireError, match=message):
            await drive("127.0.0.1", port, list(islice(messages("box", "demo", TOKENS, count()), 2)), 2)


async def test_a_server_that_hangs_up_fails_the_run() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        with pytest.raises(WireError, match="closed the connection"):
            await drive("127.0.0.1", server.sockets[0].getsockname()[1], [b"POST / HTTP/1.1\r\n\r\n"], 1)


async def test_a_server_that_says_nothing_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "REQUEST_TIMEOUT_S", 0.05)
    async with Fake(1, pause_s=30).port() as port:
        with pytest.raises(asyncio.TimeoutError):
            await drive("127.0.0.1", port, list(islice(messages("box", "demo", TOKENS, count()), 1)), 1)
