"""The parser of chunked answers: what it counts does not depend on how the network cuts the bytes."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.load import sample
from tests.bench.wire import Answer, TokenEvent, WireError, token_events

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(tokens: int | None) -> bytes:
    """A server-sent event that says how many tokens there are so far."""
    return b"data: " + json.dumps({"choices": [], "usage": None if tokens is None else {"completion_tokens": tokens}}).encode() + b"\n\n"


def chunk(*events: bytes) -> bytes:
    content = b"".join(events)
    return b"%x\r\n%s\r\n" % (len(content), content)


STREAM = HEAD + chunk(event(None)) + chunk(event(1)) + chunk(event(2), event(4)) + chunk(event(4), b"data: [DONE]\n\n") + chunk()


def fed(*reads: bytes) -> Answer:
    answer = Answer()
    for number, data in enumerate(reads):
        answer.feed(data, float(number))
    return answer


def test_counts_chunks_events_and_reads() -> None:
    answer = fed(STREAM)
    assert (answer.status, answer.reads, answer.chunks, len(answer.events), answer.complete) == (200, 1, 4, 6, True)
    assert token_events(answer) == [TokenEvent(0.0, 2, 1), TokenEvent(0.0, 3, 1), TokenEvent(0.0, 3, 2)]


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=8))
def test_cuts_change_nothing_but_the_reads(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(STREAM)]
    answer = fed(*(STREAM[a:b] for a, b in pairwise(places)))
    assert answer.complete
    assert answer.reads == len(places) - 1
    assert [(number, payload) for _, number, payload in answer.events] == [(n, p) for _, n, p in fed(STREAM).events]


def test_an_event_has_the_time_of_the_read_that_completes_it() -> None:
    cut = STREAM.index(event(1)) + 5
    assert [each.at for each in token_events(fed(STREAM[:cut], STREAM[cut:]))] == [1.0, 1.0, 1.0]
    cut = STREAM.index(event(2))
    assert [each.at for each in token_events(fed(STREAM[:cut], STREAM[cut:]))] == [0.0, 1.0, 1.0]


def test_an_event_over_two_chunks_belongs_to_the_second() -> None:
    one = event(1)
    answer = fed(HEAD + chunk(one[:9]) + chunk(one[9:]) + chunk())
    assert token_events(answer) == [TokenEvent(0.0, 2, 1)]


def test_a_sample_counts_tokens_that_come_together_as_gaps_of_zero() -> None:
    cut = STREAM.index(event(2))
    got = sample(-0.5, fed(STREAM[:cut], STREAM[cut:]))
    assert (got.ttft, got.gaps) == (0.5, (1.0, 0.0, 0.0))
    assert (got.tokens, got.events, got.token_chunks, got.chunks, got.reads) == (4, 3, 2, 4, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}", "status 503, and not chunked"),
        (HEAD + b"xyz\r\n", "no chunk size"),
    ],
)
def test_what_is_no_stream_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        fed(data)


@pytest.mark.parametrize(
    ("payload", "message"), [(b"data: nonsense\n\n", "not JSON"), (b'data: {"error": {"code": 500}}\n\n', "error in the stream")]
)
def test_an_event_that_is_no_token_is_an_error(payload: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        token_events(fed(HEAD + chunk(payload) + chunk()))


def test_an_answer_without_a_token_has_no_sample() -> None:
    with pytest.raises(WireError, match="no token"):
        sample(0.0, fed(HEAD + chunk(event(None)) + chunk()))
