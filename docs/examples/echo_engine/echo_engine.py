"""An engine of your own, without a model: it answers with the last message."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ray_serve_cai import EngineInfo
from ray_serve_cai.engines import user_config
from ray_serve_cai.engines.base import ASGIApp, Report
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import ConfigError

ECHO = EngineInfo(
    name="echo",
    description="Answers with the last message",
    config_builder="echo_engine:EchoConfigBuilder",
    engine="echo_engine:EchoEngine",
    distribution="ray-serve-cai-echo",
)


class EchoConfigBuilder:
    """The user's configuration -> the engine's arguments; `prefix` is the only one of its own."""

    def get_default_config(self) -> dict[str, Any]:
        return user_config.defaults()

    def validate_config(self, user: Mapping[str, Any]) -> tuple[bool, str | None]:
        try:
            self.build_config(user)
        except ConfigError as error:
            return False, str(error)
        return True, None

    def build_config(self, user: Mapping[str, Any]) -> dict[str, Any]:
        config = user_config.validate(user, decided={})
        unknown = sorted(config.engine_args.keys() - {"prefix"})
        if unknown:
            raise ConfigError(f"engine_args.{unknown[0]}: the echo engine has no such argument; use prefix.")
        return {"model": config.model_source, "served_model_name": config.model, "prefix": "", **config.engine_args}


class EchoEngine:
    """One replica. A real engine loads its model in `start`, and raises in `check_health` when it must be replaced."""

    engine_type = "echo"

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    @property
    def model_name(self) -> str:
        return self._config.name

    async def start(self, report: Report) -> None:
        report("loading weights")

    async def check_health(self) -> None:
        """Nothing here can die."""

    async def shutdown(self) -> None:
        """Nothing is left to stop."""

    def asgi_app(self) -> ASGIApp:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/completions", self.answer, methods=["POST"]),
                Route("/v1/chat/completions", self.answer, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.model_name, "object": "model", "created": 0, "owned_by": "echo"}]})

    async def answer(self, request: Request) -> Response:
        chat = request.url.path.endswith("/chat/completions")
        try:
            asked = await request.json()
            text = self._config.arguments["prefix"] + (asked["messages"][-1]["content"] if chat else asked["prompt"])
        except (ValueError, LookupError, TypeError):
            error = {"message": "send JSON with messages, or with a prompt", "type": "invalid_request_error", "param": None, "code": 400}
            return JSONResponse({"error": error}, 400)
        kind = "chat.completion" if chat else "text_completion"
        head = {"id": f"echo-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.model_name}
        if asked.get("stream"):
            return StreamingResponse(stream(head, text, chat), media_type="text/event-stream")
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        words = len(text.split())
        usage = {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}
        return JSONResponse({**head, "choices": [{"index": 0, **said, "finish_reason": "stop"}], "usage": usage})


def stream(head: Mapping[str, Any], text: str, chat: bool) -> Iterator[str]:
    """One event for each word, as OpenAI's API frames them."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    words = text.split(" ")
    for number, word in enumerate(words):
        last = number == len(words) - 1
        piece = word if last else word + " "
        said = {"delta": {"role": "assistant", "content": piece}} if chat else {"text": piece}
        choice = {"index": 0, **said, "finish_reason": "stop" if last else None}
        yield f"data: {json.dumps({**head, 'object': kind, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"
