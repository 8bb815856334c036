"""What SGLang would answer wrongly, or not survive, is refused before it sees it. Pure but for one ASGI layer; imports no SGLang.

Seen with SGLang 0.5.23: any model name is answered for, and an adapter's bare name by the base model. A token id, or a number of log
probabilities, beyond the vocabulary ends the engine for everybody, as does a chat with a model that embeds; a huge ``n`` blocks it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_serve_cai.engines.base import ASGIApp, Message, Receive, Scope, Send
from ray_serve_cai.engines.refusals import Refusal

MAX_N = 4096
"""Answers to one request. SGLang has no limit, and its scheduler stands still while it takes them in."""
_PATHS = ("/v1/", "/api/", "/generate", "/encode", "/classify", "/invocations", "/vertex_generate", "/tokenize", "/detokenize")
_GENERATE = ("/v1/chat/", "/v1/completions", "/v1/messages", "/v1/responses", "/api/chat", "/api/generate", "/generate", "/invocations")
_TOKENS = ("prompt", "input", "input_ids", "items", "query", "label_token_ids", "token_ids_logprob")
_LOGPROBS = ("logprobs", "top_logprobs", "top_logprobs_num")


@dataclass(frozen=True)
class Served:
    """What a running engine knows: its model's name, those of its adapters, the size of its vocabulary, and whether it generates text."""

    model: str
    adapters: frozenset[str]
    vocabulary: int
    generates: bool = True


def refusal(path: str, document: Mapping[str, Any], served: Served) -> Refusal | None:
    """Why a request must not reach the engine; None if it may."""
    model = document.get("model")
    if isinstance(model, str) and model and (wrong := _unknown(model, served)):
        return Refusal(404, "NotFoundError", wrong, "model")
    if not served.generates and path.startswith(_GENERATE):
        return _bad("model", f"The model `{served.model}` embeds and does not generate text; ask /v1/embeddings.")
    for part in (document, *_mappings(document.get("sampling_params"))):
        if _highest(part.get("n")) > MAX_N:
            return _bad("n", f"n must be at most {MAX_N}, got {part['n']}.")
    for name in _LOGPROBS:
        if _highest(document.get(name)) > served.vocabulary:
            return _bad(name, f"{name} must be at most {served.vocabulary}, the size of the vocabulary, got {document[name]}.")
    for name in _TOKENS:
        token = _outside(document.get(name), served.vocabulary)
        if token is not None:
            return _bad(name, f"{name} has token id {token}, and the vocabulary is 0 to {served.vocabulary - 1}.")
    return None


def _unknown(model: str, served: Served) -> str | None:
    """SGLang names an adapter ``model:adapter``, and cuts its own model's name off first, in which there may be colons."""
    base, _, adapter = model.rpartition(":")
    if model == served.model or (base == served.model and adapter in served.adapters):
        return None
    if model in served.adapters:
        return f"The model `{model}` is an adapter; name it `{served.model}:{model}`."
    known = [served.model, *sorted(f"{served.model}:{adapter}" for adapter in served.adapters)]
    return f"The model `{model}` does not exist. Valid aliases: {', '.join(known)}."


def _bad(param: str, message: str) -> Refusal:
    return Refusal(400, "BadRequestError", message, param)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """SGLang takes one object for all prompts, or a list with one for each."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]


def _highest(value: Any) -> float:
    """The largest of one number or several; what is no number is for the engine to judge."""
    return max((item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int | float)), default=0)


def _outside(value: Any, vocabulary: int) -> float | None:
    """A token id that does not exist, in a list of them or a list of lists."""
    lists = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for tokens in lists:
        if isinstance(tokens, list) and tokens and all(isinstance(token, int | float) for token in tokens):
            lowest: float = min(tokens)
            highest: float = max(tokens)
            if lowest < 0 or highest >= vocabulary:
                return lowest if lowest < 0 else highest
    return None


def guarded(app: ASGIApp, served: Callable[[], Served]) -> ASGIApp:
    """The application behind these refusals. A JSON body is read once, as a whole, before the engine reads the same messages.

    Its lifespan has begun before, since SGLang makes its handlers there; to begin it again would register its metrics a second time.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT") or not scope["path"].startswith(_PATHS) or _form(scope):
            await app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())
        document = _document(b"".join(message.get("body", b"") for message in messages))
        refused = refusal(scope["path"], document, served()) if document else None
        if refused:
            await refused.answer(scope["path"], send)
            return
        waiting = iter(messages)

        async def again() -> Message:
            return next(waiting, None) or await receive()

        await app(scope, again, send)

    return guard


def _form(scope: Scope) -> bool:
    """Files, which may be large, come as forms."""
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


def _document(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
