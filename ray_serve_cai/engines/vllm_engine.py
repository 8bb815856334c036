"""vLLM inside a replica: its own engine and its own HTTP application, made as ``vllm serve`` makes them.

All that touches vLLM's private names stands here; read in vLLM 0.32.0 (vllm/entrypoints/launchers).
"""

from __future__ import annotations

import json
import types
from argparse import Namespace
from contextlib import AsyncExitStack
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn, cast

from ray_serve_cai.engines.base import ASGIApp, EngineConfig, Report
from ray_serve_cai.errors import ConfigError, EngineError, RayServeCaiError

if TYPE_CHECKING:
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
        arguments = server_arguments(self._config)
        if arguments.tool_parser_plugin:
            ToolParserManager.import_tool_parser(arguments.tool_parser_plugin)
        if arguments.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(arguments.reasoning_parser_plugin)
        try:
            client = await self._stack.enter_async_context(build_async_engine_client(arguments))
        except (ValueError, RuntimeError, OSError) as error:
            raise _explained(error, self._config) from error
        tasks = await client.get_supported_tasks()
        app = build_app(arguments, tasks, client.model_config)
        await init_app_state(client, app.state, arguments, tasks)
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


def server_arguments(config: EngineConfig) -> Namespace:
    """The namespace that ``vllm serve`` would have parsed from the same arguments, defaults included.

    Raises:
        ConfigError: an unknown argument, with the nearest known one; or a value vLLM's parser refuses.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM's class is untyped here
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f"models[{config.name}].engine_args: {message}.")

    parser = make_arg_parser(Parser())
    actions = {action.dest: action for action in parser._actions}
    line = [config.model, "--served-model-name", config.name]
    for key, value in config.arguments.items():
        if key not in actions:
            near = get_close_matches(key, actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "see the engine's documentation for its arguments."
            raise ConfigError(f"models[{config.name}].engine_args.{key}: vLLM has no such argument; {hint}")
        line += option(key, value, repeats=actions[key].nargs in ("+", "*"))
    arguments = parser.parse_args(line)
    arguments.model = config.model
    try:
        validate_parsed_serve_args(arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"models[{config.name}].engine_args: {error}.") from error
    return cast(Namespace, arguments)


def option(key: str, value: Any, *, repeats: bool) -> list[str]:
    """One argument as words of a command line; None means the engine's default.

    >>> option("max_model_len", 512, repeats=False)
    ['--max-model-len', '512']
    >>> option("enable_prefix_caching", False, repeats=False)
    ['--no-enable-prefix-caching']
    """
    flag = "--" + key.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, list) and repeats:
        return [flag, *(_word(item) for item in value)]
    return [flag, _word(value)]


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _explained(error: Exception, config: EngineConfig) -> RayServeCaiError:
    line = " ".join(str(error).split())
    line = line if len(line) <= 600 else line[:597] + "..."
    kind = ConfigError if isinstance(error, ValueError) else EngineError
    return kind(f"vLLM did not start model {config.name!r} from {config.model}: {line}")
