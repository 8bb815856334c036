"""An engine of your own in 60 lines, without a model: it answers with the last message."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ray_serve_cai.engines import ConfigBuilder, EngineConfig, EngineInfo
from ray_serve_cai.errors import ConfigError

ECHO = EngineInfo(
    name="echo",
    description="Answers with the last message",
    config_builder="echo_engine:EchoConfigBuilder",
    engine="echo_engine:EchoEngine",
    distribution="ray-serve-cai-echo",
    weights=False,  # a model of it has no files
)


class EchoConfigBuilder(ConfigBuilder):
    def arguments(self, config: Any) -> dict[str, Any]:
        if unknown := config.engine_args.keys() - {"prefix"}:
            raise ConfigError(f"engine_args.{min(unknown)}: the echo engine has no such argument; use prefix.")
        return {"prefix": "", **config.engine_args}


class EchoEngine:
    engine_type, model_name = "echo", ""

    def __init__(self, config: EngineConfig) -> None:
        self.model_name, self.prefix = config.name, config.arguments["prefix"]

    async def start(self, report: Any) -> None: ...  # load the model, and return when it can answer
    async def check_health(self) -> None: ...  # raise when this replica must be replaced
    async def shutdown(self) -> None: ...

    def asgi_app(self) -> Any:
        return Starlette(routes=[Route("/v1/models", self.models), Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.model_name, "object": "model", "created": 0, "owned_by": "echo"}]})

    async def chat(self, request: Request) -> Response:
        asked = await request.json()
        words = f"{self.prefix}{asked['messages'][-1]['content']}".split(" ")
        if asked.get("stream"):
            return StreamingResponse(self.events(words), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}, "finish_reason": "stop"}
        return JSONResponse({"id": "echo", "object": "chat.completion", "created": 0, "model": self.model_name, "choices": [choice]})

    def events(self, words: list[str]) -> Iterator[str]:
        for word in (*(f"{word} " for word in words[:-1]), words[-1]):
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            chunk = {"id": "echo", "object": "chat.completion.chunk", "created": 0, "model": self.model_name, "choices": [choice]}
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"
