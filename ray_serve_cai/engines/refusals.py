"""An error that we answer in an engine's place, in the form of the API that was asked. Pure but for `respond`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ray_serve_cai.engines.base import Send

_ANTHROPIC = {404: "not_found_error", 503: "overloaded_error"}
"""Types of errors of Anthropic's API, by status; docs.anthropic.com/en/api/errors."""


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and the reason; ``kind`` and ``param`` are OpenAI's words, ``retry_after_s`` becomes a header."""

    status: int
    kind: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    def document(self, path: str) -> dict[str, Any]:
        """The body, in OpenAI's, Anthropic's or Ollama's form."""
        if path.startswith("/v1/messages"):
            return {"type": "error", "error": {"type": _ANTHROPIC.get(self.status, "invalid_request_error"), "message": self.message}}
        if path.startswith("/api/"):
            return {"error": self.message}
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}

    async def answer(self, path: str, send: Send) -> None:
        """Send it, whole."""
        await respond(send, self.status, self.document(path), self.retry_after_s)


async def respond(send: Send, status: int, document: object, retry_after_s: int | None = None) -> None:
    """A whole JSON answer."""
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
