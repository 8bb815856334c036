"""Compressed sizes of a stream that somebody reads."""

from __future__ import annotations

import gzip
import io
import random

import pytest
import zstandard

from images.compressing import Compressing

pytestmark = pytest.mark.issue(7)
DATA = random.Random(7).randbytes(3_000_000) + b"words and words " * 200_000


def test_what_the_commands_would_give() -> None:
    """Both as streams: a frame without the content's size in its header, as a pipe gives it."""
    with Compressing(io.BytesIO(DATA)) as stream:
        assert stream.read(1000) + stream.read(2_000_000) == DATA[:2_001_000]
        totals = stream.totals()
    assert totals["gzip"] == len(gzip.compress(DATA, 6))
    whole = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(DATA)
    assert totals["zstd"] == pytest.approx(len(whole), rel=0.001)


def test_an_empty_stream() -> None:
    with Compressing(io.BytesIO()) as stream:
        assert stream.totals() == {"zstd": len(zstandard.ZstdCompressor().compressobj().flush()), "gzip": 20}


def test_a_compressor_that_fails_is_no_small_size() -> None:
    class Broken:
        def compress(self, chunk: bytes) -> bytes:
            raise MemoryError("no room")

    with Compressing(io.BytesIO(DATA)) as stream:
        stream._meters["gzip"]._compressor = Broken()
        with pytest.raises(MemoryError, match="no room"):
            stream.totals()
