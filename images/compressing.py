"""Measures what a stream comes to when it is compressed, while somebody else reads it; nothing is kept."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, cast

import zstandard

BLOCK = 1 << 20
GZIP_FORMAT = 31
"""zlib's window of 32 KiB with gzip's header and trailer."""


def zstd(level: int = 3) -> Any:
    """A compressor as `zstd -LEVEL` uses it."""
    return zstandard.ZstdCompressor(level=level).compressobj()


def gzip(level: int = 6) -> Any:
    """A compressor as `gzip -LEVEL` uses it."""
    return zlib.compressobj(level, zlib.DEFLATED, GZIP_FORMAT)


class Compressing:
    """A stream that counts the compressed bytes of what is read from it, each compressor in a thread of its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._meters = {"zstd": _Meter(zstd()), "gzip": _Meter(gzip())}

    def __enter__(self) -> Compressing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for meter in self._meters.values():
            meter.close()

    def read(self, size: int = BLOCK) -> bytes:
        """Read on; the bytes are compressed while the caller works on them."""
        chunk = self._stream.read(size)
        if chunk:
            for meter in self._meters.values():
                meter.feed(chunk)
        return chunk

    def as_stream(self) -> IO[bytes]:
        """Itself, for whoever does no more than read."""
        return cast("IO[bytes]", self)

    def totals(self) -> dict[str, int]:
        """Read the rest; the compressed bytes by format."""
        while self.read(BLOCK):
            pass
        return {name: meter.total() for name, meter in self._meters.items()}


class _Meter:
    """A compressor that is one chunk behind."""

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._count = 0
        self._pending: Future[None] = self._thread.submit(lambda: None)

    def feed(self, chunk: bytes) -> None:
        self._pending.result()
        self._pending = self._thread.submit(self._add, lambda: self._compressor.compress(chunk))

    def total(self) -> int:
        self._pending.result()
        self._add(self._compressor.flush)
        return self._count

    def close(self) -> None:
        self._thread.shutdown()

    def _add(self, made: Callable[[], bytes]) -> None:
        self._count += len(made())
