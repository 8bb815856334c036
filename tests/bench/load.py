"""The load: a fixed number of streams, each with one connection, each sending its next request when the last one ended.

Raw asyncio protocols: each read of the socket costs a time stamp and a search for line ends, all else waits until the end.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from tests.bench.wire import Answer, WireError, token_events

REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Sample:
    """One request: seconds from its first byte sent to the first token, the gaps between tokens in seconds, and counts.

    ``events`` and ``token_chunks`` are the events, and the HTTP chunks, that carry at least one token.
    """

    ttft: float
    gaps: tuple[float, ...]
    tokens: int
    events: int
    token_chunks: int
    chunks: int
    reads: int


@dataclass(frozen=True)
class Run:
    """All requests of one run, its wall time and the client's own CPU time, both in seconds."""

    samples: tuple[Sample, ...]
    wall_s: float
    client_cpu_s: float

    @property
    def tokens(self) -> int:
        return sum(sample.tokens for sample in self.samples)


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer = Answer()
        self._done: asyncio.Future[Answer] | None = None
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        try:
            self._answer.feed(data, now)
        except WireError as error:
            self._fail(error)
            return
        if self._answer.complete and self._done and not self._done.done():
            self._done.set_result(self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._fail(WireError(f"the server closed the connection: {exc}"))

    async def request(self, message: bytes) -> tuple[float, Answer]:
        """Send a request; gives the time before its first byte and the complete answer.

        Raises:
            WireError: the answer is no stream, or the connection broke.
            asyncio.TimeoutError: no complete answer in `REQUEST_TIMEOUT_S`.
        """
        assert self._transport is not None
        self._answer = Answer()
        self._done = asyncio.get_running_loop().create_future()
        sent = time.perf_counter()
        self._transport.write(message)
        return sent, await asyncio.wait_for(self._done, REQUEST_TIMEOUT_S)

    async def close(self) -> None:
        self._done = None
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def _fail(self, error: WireError) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(error)


def sample(sent: float, answer: Answer) -> Sample:
    """What one answer says. A token's time is that of the read that completed its event: tokens that come together have gaps of 0."""
    events = token_events(answer)
    if answer.status != 200 or not events:
        raise WireError(f"status {answer.status} and no token: {answer.events[:2]}")
    times = [event.at for event in events for _ in range(event.tokens)]
    return Sample(
        ttft=times[0] - sent,
        gaps=tuple(later - earlier for earlier, later in pairwise(times)),
        tokens=len(times),
        events=len(events),
        token_chunks=len({event.chunk for event in events}),
        chunks=answer.chunks,
        reads=answer.reads,
    )


async def drive(host: str, port: int, messages: Sequence[bytes], concurrency: int) -> Run:
    """Send all messages over ``concurrency`` connections, which are open before the clock starts.

    Raises:
        WireError: one request failed; a benchmark with failed requests has no result.
    """
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, host, port))[1] for _ in range(concurrency)]
    pending = iter(messages)
    answers: list[tuple[float, Answer]] = []

    async def stream(connection: Connection) -> None:
        for message in pending:
            answers.append(await connection.request(message))

    before, started = _cpu_s(), time.perf_counter()
    streams = [asyncio.ensure_future(stream(connection)) for connection in connections]
    try:
        await asyncio.gather(*streams)
        wall, cpu = time.perf_counter() - started, _cpu_s() - before
    finally:
        for each in streams:
            each.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await asyncio.gather(*(connection.close() for connection in connections))
    return Run(tuple(sample(sent, answer) for sent, answer in answers), wall, cpu)


def messages(host: str, model: str, tokens: int, serial: count[int]) -> Iterator[bytes]:
    """Chat requests without end; no two prompts of one ``serial`` begin with the same words, so no prefix is in a cache."""
    for number in serial:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": f"{number:06d} is the number of this question. What is ray-serve-cai?"}],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        yield head.encode() + content


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
