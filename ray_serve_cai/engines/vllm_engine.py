"""vLLM inside a replica: its own engine and its own HTTP application, made as ``vllm serve`` makes them.

All that touches vLLM's private names stands here; read in vLLM 0.32.0 (vllm/entrypoints/launchers).
"""

from __future__ import annotations

import types
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from ray_serve_cai.engines import arguments
from ray_serve_cai.engines.base import ASGIApp, Report
from ray_serve_cai.engines.engine_config import EngineConfig, start_error
from ray_serve_cai.engines.vllm_config import VLLMDeploymentFactory
from ray_serve_cai.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from ray.serve import Application
    from vllm.engine.protocol import EngineClient


class VLLMEngine:
    """`LLMEngineProtocol` for vLLM."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._client: EngineClient | None = None
        self._app: ASGIApp | None = None

    @property
    def engine_type(self) -> str:
        return "vllm"

    @property
    def model_name(self) -> str:
        return self._config.name

    async def start(self, report: Report) -> None:
        """Load the weights and build vLLM's application.

        Raises:
            ConfigError: an argument vLLM does not know, or refuses.
            EngineError: the engine did not start.
        """
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
        from vllm.entrypoints.launchers.app import build_app
        from vllm.reasoning import ReasoningParserManager
        from vllm.tool_parsers import ToolParserManager

        report("loading weights")
        parsed = server_arguments(self._config)
        if parsed.tool_parser_plugin:
            ToolParserManager.import_tool_parser(parsed.tool_parser_plugin)
        if parsed.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(parsed.reasoning_parser_plugin)
        try:
            client = await self._stack.enter_async_context(build_async_engine_client(parsed))
        except (ValueError, RuntimeError, OSError) as error:
            raise start_error("vLLM", self._config, error) from error
        tasks = await client.get_supported_tasks()
        app = build_app(parsed, tasks, client.model_config)
        await init_app_state(client, app.state, parsed, tasks)
        app.state.server = types.SimpleNamespace()  # its error handler stops "the server" through this name
        self._client, self._app = client, app

    def asgi_app(self) -> ASGIApp:
        if self._app is None:
            raise EngineError(f"model {self.model_name!r} has not started; call start() first.")
        return self._app

    async def check_health(self) -> None:
        if self._client is None:
            raise EngineError(f"model {self.model_name!r} has not started; call start() first.")
        await self._client.check_health()

    async def shutdown(self) -> None:
        await self._stack.aclose()

    @classmethod
    def run_shard(cls, config: EngineConfig) -> None:
        """`SpansNodes`: what ``vllm serve --headless`` does."""
        from vllm.entrypoints.cli.serve import run_headless

        parsed = server_arguments(config)
        parsed.headless = True
        parsed.api_server_count = 1
        run_headless(parsed)


def create_vllm_deployment(
    engine_config: Mapping[str, Any], num_replicas: int = 1, tensor_parallel_size: int = 1, use_cpu: bool = False
) -> Application:
    """`VLLMDeploymentFactory.create_deployment`."""
    return VLLMDeploymentFactory().create_deployment(engine_config, num_replicas, tensor_parallel_size, use_cpu)


def server_arguments(config: EngineConfig) -> Namespace:
    """The namespace that ``vllm serve`` would have parsed from the same arguments, defaults included.

    Raises:
        ConfigError: an unknown argument, with the nearest known one; or a value vLLM's parser refuses.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = [config.model, "--served-model-name", config.name]
    if config.seat:
        words += ["--nnodes", str(config.nodes), "--node-rank", str(config.seat.node)]
        words += ["--master-addr", config.seat.address, "--master-port", str(config.seat.port)]
        here = config.ranks // config.nodes
        if here > 1 and not config.gpus:  # it takes the number of devices for the ranks of a node, and sees one CPU
            words += ["--device-ids", ",".join(map(str, range(here)))]
    parsed = arguments.parse(make_arg_parser(FlexibleArgumentParser()), words, config.arguments, model=config.name, engine="vLLM")
    parsed.model = config.model
    parsed.enable_request_id_headers = False  # Serve names the request in every answer; vLLM would do it once more
    try:
        validate_parsed_serve_args(parsed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"models[{config.name}].engine_args: {error}.") from error
    return parsed
