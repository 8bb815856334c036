"""The comparison itself: that it sees what differs, and only overlooks what it says it overlooks."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.engines.comparison import Answer, differences
from tests.engines.streams import fold, parse

pytestmark = pytest.mark.issue(3)
BODY: dict[str, Any] = {
    "id": "chatcmpl-8f3a9c0d1e2b4a5f",
    "created": 1795552076,
    "choices": [{"index": 0, "message": {"content": "Hello!", "tool_calls": [{"id": "chatcmpl-tool-8f3a9c0d1e2b4a5f"}]}, "logprob": -0.25}],
    "usage": {"prompt_tokens": 5},
}
HEADERS = {"content-type": "application/json", "server": "uvicorn"}


def answer(body: Any = BODY, status: int = 200, **headers: str) -> Answer:
    return Answer(status, HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}, body)


def changed(**values: Any) -> dict[str, Any]:
    return copy.deepcopy(BODY) | values


def test_ids_and_clocks_are_overlooked() -> None:
    other = json.loads(json.dumps(BODY).replace("8f3a9c0d1e2b4a5f", "386649b5-1518-4cb7-a9b3-6fa78eaf557b")) | {"created": 1}
    assert differences(answer(other, x_request_id="386649b5-1518-4cb7-a9b3-6fa78eaf557b"), answer()) == []


def test_a_request_is_named_once() -> None:
    assert differences(answer(x_request_id="mine"), answer(x_request_id="mine")) == []
    assert differences(answer(x_request_id="mine, mine"), answer(x_request_id="mine")) == ['$.headers.x-request-id: "mine, mine" != "mine"']


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        (answer(changed(id="chatcmpl-mine")), '$.body.id: "chatcmpl-mine" != "chatcmpl-<generated>"'),
        (answer(changed(id="cmpl-8f3a9c0d1e2b4a5f")), '$.body.id: "cmpl-<generated>" != "chatcmpl-<generated>"'),
        (answer(changed(created=None)), '$.body.created: null != "<seconds since 1970 of the request>"'),
        (answer(changed(usage={"prompt_tokens": 5.0})), "$.body.usage.prompt_tokens: 5.0 != 5"),
        (answer(changed(usage={})), "$.body.usage.prompt_tokens: (missing) != 5"),
        (answer(changed(more=None)), "$.body.more: null != (missing)"),
        (answer(changed(choices=[])), "$.body.choices[0]: (missing) != "),
        (
            answer(changed(choices=[BODY["choices"][0] | {"logprob": -0.25000000000000006}])),
            "$.body.choices[0].logprob: -0.25000000000000006 != -0.25",
        ),
        (answer(status=500), "$.status: 500 != 200"),
        (answer(content_type="text/html"), '$.headers.content-type: "text/html" != "application/json"'),
        (answer(x_more="1"), '$.headers.x-more: "1" != (missing)'),
        (Answer(200, {"content-type": "application/json"}, BODY), '$.headers.server: (missing) != "uvicorn"'),
    ],
)
def test_everything_else_is_seen(ours: Answer, line: str) -> None:
    (found,) = differences(ours, answer())
    assert found.startswith(line)


def test_floats_may_differ_as_far_as_is_said() -> None:
    near = answer(changed(choices=[BODY["choices"][0] | {"logprob": -0.25001}]))
    assert differences(near, answer(), tolerance=1e-4) == []
    assert len(differences(near, answer(), tolerance=1e-6)) == 1


def stream(*pieces: str, finish: str = "stop", done: bool = True) -> dict[str, Any]:
    """A chat's stream, folded."""
    chunks: list[dict[str, Any]] = [
        {"id": "a", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    ]
    chunks += [
        {"id": "a", "choices": [{"index": 0, "delta": {"content": piece}, "logprobs": {"content": [{"token": c} for c in piece]}}]}
        for piece in pieces
    ]
    chunks[-1]["choices"][0]["finish_reason"] = finish
    chunks.append({"id": "a", "choices": [], "usage": {"completion_tokens": 4}})
    return fold(parse("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n" * done))


def test_how_a_stream_is_cut_is_overlooked() -> None:
    assert differences(answer(stream("a", "b", "cd")), answer(stream("ab", "c", "d"))) == []


@pytest.mark.parametrize(
    ("ours", "path"),
    [
        (stream("a", "b", "c"), "$.body.choices[0].delta.content"),
        (stream("abcd", finish="length"), "$.body.choices[0].finish_reason"),
        (stream("abcd", done=False), "$.body.events[0]"),
    ],
)
def test_what_a_stream_says_is_seen(ours: dict[str, Any], path: str) -> None:
    assert any(line.startswith(path) for line in differences(answer(ours), answer(stream("ab", "cd"))))


def events(*given: dict[str, Any]) -> dict[str, Any]:
    """A stream of typed events, folded."""
    return fold(parse("".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in given)))


def delta(number: int, text: str, item: str = "msg_1") -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": item, "delta": text, "sequence_number": number}


def test_typed_events_are_joined_by_item() -> None:
    whole = events(delta(0, "ab"), {"type": "done", "sequence_number": 1})
    assert events(delta(0, "a"), delta(1, "b"), {"type": "done", "sequence_number": 2}) == whole
    assert events(delta(0, "a"), delta(1, "b", "msg_2"), {"type": "done", "sequence_number": 2}) != whole
    assert events(delta(0, "a"), delta(2, "b"), {"type": "done", "sequence_number": 3}) != whole


def test_the_order_of_thought_and_answer_is_seen() -> None:
    def chunk(**part: str) -> str:
        return f"data: {json.dumps({'choices': [{'index': 0, 'delta': part}]})}\n\n"

    first = fold(parse(chunk(reasoning="a") + chunk(content="b")))
    assert fold(parse(chunk(content="b") + chunk(reasoning="a")))["order"] != first["order"]


def test_a_comment_or_a_retry_is_no_event_to_overlook() -> None:
    assert parse(": ping\n\n") != []
    assert parse("retry: 5\ndata: 1\n\n") != parse("data: 1\n\n")
