"""What comes over the wire: an HTTP/1.1 answer in chunked encoding that carries server-sent events. Pure, and counts.

A library would hide where one network chunk ends and the next begins, and that is one of the things measured.
RFC 9112, sections 6 and 7.1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

END_OF_HEAD = b"\r\n\r\n"
END_OF_LINE = b"\r\n"
END_OF_EVENT = b"\n\n"
DONE = b"[DONE]"


class WireError(Exception):
    """The server's answer is not a chunked stream of events."""


@dataclass
class Answer:
    """One answer, fed with what each read of the socket gave.

    ``events`` holds, for each server-sent event, the time of the read that completed it, the number of the HTTP chunk that
    completed it, and its payload. Payloads are not parsed here: that waits until nothing is timed any more.
    """

    status: int = 0
    reads: int = 0
    chunks: int = 0
    complete: bool = False
    body: bytearray = field(default_factory=bytearray)
    events: list[tuple[float, int, bytes]] = field(default_factory=list)
    _raw: bytearray = field(default_factory=bytearray)
    _head_seen: bool = False
    _left: int = -1
    """Bytes of the current chunk that have not come, its line end included; -1 between chunks."""

    def feed(self, data: bytes, now: float) -> None:
        """Take one read of the socket.

        Raises:
            WireError: the answer is not chunked, or its framing is broken.
        """
        self.reads += 1
        self._raw += data
        if not self._head_seen and not self._read_head():
            return
        while not self.complete and self._read_chunk(now):
            pass

    def _read_head(self) -> bool:
        end = self._raw.find(END_OF_HEAD)
        if end < 0:
            return False
        head = bytes(self._raw[:end]).decode("latin-1").lower()
        self.status = int(head.split(" ", 2)[1])
        if "transfer-encoding: chunked" not in head:
            raise WireError(f"status {self.status}, and not chunked: {head!r} {bytes(self._raw[end:])[:300]!r}")
        del self._raw[: end + len(END_OF_HEAD)]
        self._head_seen = True
        return True

    def _read_chunk(self, now: float) -> bool:
        """Take one chunk if all of it is there."""
        if self._left < 0:
            end = self._raw.find(END_OF_LINE)
            if end < 0:
                return False
            size = bytes(self._raw[:end]).split(b";", 1)[0]
            try:
                self._left = int(size, 16) + len(END_OF_LINE)
            except ValueError:
                raise WireError(f"no chunk size: {size[:80]!r}") from None
            del self._raw[: end + len(END_OF_LINE)]
        if len(self._raw) < self._left:
            return False
        content = self._raw[: self._left - len(END_OF_LINE)]
        del self._raw[: self._left]
        self._left = -1
        if not content:
            self.complete = True
            return False
        self.chunks += 1
        self._read_events(content, now)
        return True

    def _read_events(self, content: bytearray, now: float) -> None:
        self.body += content
        while (end := self.body.find(END_OF_EVENT)) >= 0:
            self.events.append((now, self.chunks, bytes(self.body[:end])))
            del self.body[: end + len(END_OF_EVENT)]


@dataclass(frozen=True)
class TokenEvent:
    """An event that carries at least one token: when it came, in which HTTP chunk, how many tokens."""

    at: float
    chunk: int
    tokens: int


def token_events(answer: Answer) -> list[TokenEvent]:
    """The events that carry tokens, by the server's own running count (``continuous_usage_stats``).

    A role, a final usage and ``[DONE]`` carry none. Text is no measure: a token may be half a character.

    Raises:
        WireError: an event that is neither JSON nor ``[DONE]``, or an error in the stream.
    """
    found: list[TokenEvent] = []
    seen = 0
    for at, chunk, payload in answer.events:
        text = payload.removeprefix(b"data:").strip()
        if text == DONE:
            continue
        try:
            event = json.loads(text)
        except ValueError:
            raise WireError(f"an event that is not JSON: {payload[:200]!r}") from None
        if not isinstance(event, dict) or "error" in event:
            raise WireError(f"an error in the stream: {payload[:300]!r}")
        count = int((event.get("usage") or {}).get("completion_tokens", seen))
        if count > seen:
            found.append(TokenEvent(at, chunk, count - seen))
            seen = count
    return found
