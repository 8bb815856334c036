"""Two answers to one request, field by field.

What is left out of the comparison stands in the constants at the top, each with its reason; everything else must be equal,
floats to the last bit: both servers run the same code on the same machine, and see the same requests in the same order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.engines.shapes import Shape
from tests.engines.streams import fold, fold_lines, parse

TIMES = {
    "created": "seconds since 1970 of the request",
    "created_at": "the same, in /v1/responses",
    "completed_at": "the same, in /v1/responses",
    "e2e_latency": "seconds that SGLang took",
    "response_sent_to_client_ts": "seconds since 1970 of SGLang's answer",
    "total_duration": "nanoseconds that SGLang took, in Ollama's form",
}
"""Fields whose value is a clock: both servers must have a number there, of any value."""

GENERATED = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b|(?<=[-_])[0-9a-f]{16,32}\b|\b[0-9a-f]{16}\b|(?<=\bfc_)[0-9a-f]{8}\b"
)
"""Ids that a server makes up at random. Only this part of a text is left out: prefixes, and ids that the client chose, are compared."""

CLOCK = re.compile(r"\[\d\d:\d\d:\d\d\]|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
"""The time of day that xgrammar writes into the messages of its errors, and the time of an answer in Ollama's form."""

HEADERS = {
    "date": "a clock",
    "content-length": "follows from the body, whose generated ids differ in length; the body itself is compared",
    "transfer-encoding": "how the body is cut is for each hop to decide",
    "connection": "of one hop",
    "keep-alive": "of one hop",
}
"""Headers left out; all others must be there on both sides with equal values."""

NAMING_HEADERS = {"x-request-id": "Ray Serve names each request in its answer; vLLM does so only with --enable-request-id-headers"}
"""Headers that name a request. Names that a server made up are left out, and so is the whole header where the engine's own server
does not send it; a name that the client chose is compared."""

ROUTES = {
    "/": "the launcher introduces itself; vllm serve has no such route",
    "/health": "the launcher answers for the whole cluster, in JSON; vLLM's is empty and knows one engine",
    "/ready": "the launcher's; vllm serve has no such route",
    "/metrics": "numbers of one process and its past, the product's warm-up included: no two servers agree on them",
}
"""Routes that the product answers on purpose in another way; no shape asks them."""

MISSING = "(missing)"


@dataclass(frozen=True)
class Answer:
    """What is compared of an HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: Any


def ask(url: str, shape: Shape, *, timeout: float = 120) -> Answer:
    """Send the shape to one server; only what the shape says is in the request."""
    headers = {"content-type": "application/json"} if shape.raw is None and shape.body is not None else {}
    content = shape.raw if shape.raw is not None else b"" if shape.body is None else json.dumps(shape.body).encode()
    pieces: list[bytes] = []
    broken = False
    with httpx.stream(shape.method, url + shape.path, content=content, headers=headers | dict(shape.headers), timeout=timeout) as response:
        try:
            pieces.extend(response.iter_bytes())
        except httpx.RemoteProtocolError:  # where an engine fails in the middle of a stream, the product must break off as well
            broken = True
    kept = {name: value.replace(url, "<server>") for name, value in response.headers.items() if name not in HEADERS}
    body = _body(response.headers.get("content-type", ""), b"".join(pieces))
    return Answer(response.status_code, kept, {"broken off after": body} if broken else body)


def _body(kind: str, content: bytes) -> Any:
    if kind.startswith("text/event-stream"):
        return fold(parse(content.decode()))
    if kind.startswith("application/x-ndjson"):
        return fold_lines(content.decode())
    if kind.startswith("application/json"):
        return json.loads(content) if content else ""
    return content.decode(errors="backslashreplace")


def comparable(value: Any, name: str = "") -> Any:
    """The value without what differs from one request to the next."""
    if name in TIMES and isinstance(value, int | float) and not isinstance(value, bool):
        return f"<{TIMES[name]}>"
    if isinstance(value, Mapping):
        return {key: comparable(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, str):
        return CLOCK.sub("<time>", GENERATED.sub("<generated>", value))
    return value


def differences(ours: Answer, theirs: Answer, *, tolerance: float = 0) -> list[str]:
    """One line for each field that is not equal, as ``path: ours != theirs``; empty if the answers are.

    Args:
        tolerance: how far apart two floats may be, relative and absolute.
    """
    unnamed = {name for name in NAMING_HEADERS if comparable(theirs.headers.get(name, "<generated>")) == "<generated>"}
    sides = [
        {
            "status": answer.status,
            "headers": comparable({name: value for name, value in answer.headers.items() if name not in unnamed}),
            "body": comparable(answer.body),
        }
        for answer in (ours, theirs)
    ]
    return list(_compare("$", *sides, tolerance))


def _compare(path: str, ours: Any, theirs: Any, tolerance: float) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            yield from _compare(f"{path}.{key}", ours.get(key, MISSING), theirs.get(key, MISSING), tolerance)
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index in range(max(len(ours), len(theirs))):
            yield from _compare(f"{path}[{index}]", *(side[index] if index < len(side) else MISSING for side in (ours, theirs)), tolerance)
    elif isinstance(ours, float) and isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance):
        return
    elif type(ours) is not type(theirs) or ours != theirs:
        yield f"{path}: {_short(ours)} != {_short(theirs)}"


def _short(value: Any) -> str:
    text = value if value is MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:400]}... ({len(text)} characters)"
