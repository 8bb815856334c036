"""The shape of a request: what is sent, and why it is worth sending. The lists stand in the ``shapes_`` modules beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MODEL = "demo"
QUESTION = "What is ray-serve-cai?"


@dataclass(frozen=True)
class Shape:
    """One request, sent alike to both servers.

    ``profile`` names the pair of servers that it needs; ``smoke`` puts it in the quick tier. ``raw`` is sent as it is,
    without a content type of ours, in place of ``body``.
    """

    name: str
    reason: str
    path: str
    body: Any = None
    method: str = "POST"
    raw: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    profile: str = "generate"
    smoke: bool = False

    @property
    def stream(self) -> bool:
        return isinstance(self.body, dict) and self.body.get("stream") is True


def user(text: str = QUESTION) -> list[dict[str, Any]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def chat(
    name: str, reason: str, *, profile: str = "generate", smoke: bool = False, path: str = "/v1/chat/completions", **body: Any
) -> Shape:
    """A chat; greedy and short if it does not say otherwise. A field that is None is not sent."""
    fields = {"model": MODEL, "messages": user(), "temperature": 0, "max_tokens": 24} | body
    return Shape(name, reason, path, {key: value for key, value in fields.items() if value is not None}, profile=profile, smoke=smoke)


def complete(
    name: str, reason: str, *, profile: str = "generate", smoke: bool = False, path: str = "/v1/completions", **body: Any
) -> Shape:
    """A completion; greedy and short if it does not say otherwise. A field that is None is not sent."""
    fields = {"model": MODEL, "prompt": "Each image holds", "temperature": 0, "max_tokens": 8} | body
    return Shape(name, reason, path, {key: value for key, value in fields.items() if value is not None}, profile=profile, smoke=smoke)


def post(name: str, reason: str, path: str, body: Any, *, profile: str = "generate", smoke: bool = False) -> Shape:
    """Any other JSON request."""
    return Shape(name, reason, path, body, profile=profile, smoke=smoke)
