"""SGLang inside a replica: its own engine and its own HTTP application, made as its server makes them.

All that touches SGLang's private names stands here; read in SGLang 0.5.23 (sglang/srt/entrypoints).
"""

from __future__ import annotations

import argparse
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ray_serve_cai import engine_ports
from ray_serve_cai.engines import arguments
from ray_serve_cai.engines.base import ASGIApp, Report
from ray_serve_cai.engines.engine_config import EngineConfig, start_error
from ray_serve_cai.engines.sglang_requests import Served, guarded
from ray_serve_cai.errors import ConfigError, EngineError, one_line

if TYPE_CHECKING:
    from sglang.srt.entrypoints.engine import Engine
    from sglang.srt.server_args import ServerArgs


class SGLangEngine:
    """`LLMEngineProtocol` for SGLang. Its HTTP application is global to the process: one engine in a process."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._engine: Engine | None = None
        self._app: ASGIApp | None = None

    @property
    def engine_type(self) -> str:
        return "sglang"

    @property
    def model_name(self) -> str:
        return self._config.name

    async def start(self, report: Report) -> None:
        """Start SGLang's processes, load the weights and set its application up.

        Raises:
            ConfigError: an argument that SGLang does not know, or refuses.
            EngineError: the engine did not start.
        """
        from sglang.srt.entrypoints import http_server
        from sglang.srt.entrypoints.engine import Engine
        from sglang.srt.utils.auth import add_api_key_middleware

        report("loading weights")
        bind_threads(self._config)
        parsed = server_arguments(self._config)
        try:
            engine = Engine(server_args=parsed)
        except (ValueError, RuntimeError, OSError, EOFError) as error:
            raise start_error("SGLang", self._config, error) from error
        self._engine = engine
        self._stack.callback(engine.shutdown)
        http_server.set_global_state(
            http_server._GlobalState(
                tokenizer_manager=engine.tokenizer_manager,
                template_manager=engine.template_manager,
                scheduler_info=engine._scheduler_init_result.scheduler_infos[0],
            )
        )
        app = http_server.app
        app.is_single_tokenizer_mode = True
        app.server_args = parsed
        app.warmup_thread_kwargs = {"server_args": parsed}
        # SGLang would send its key to a port of its own, where another program may listen.
        http_server._freeze_gc_after_server_warmup = lambda _: None
        # Without keys, too: it refuses what only an administrator's key may ask for.
        add_api_key_middleware(app, api_key=parsed.api_key, admin_api_key=parsed.admin_api_key)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        await engine.tokenizer_manager.freeze_gc()
        self._app = guarded(app, lambda: self._served(engine))

    def _served(self, engine: Engine) -> Served:
        manager = engine.tokenizer_manager
        registry = getattr(manager, "lora_registry", None)
        adapters = registry.get_all_adapters() if registry is not None else {}
        names = frozenset(adapter.lora_name for adapter in adapters.values())
        return Served(self.model_name, names, manager.model_config.vocab_size, manager.is_generation)

    def asgi_app(self) -> ASGIApp:
        if self._app is None:
            raise EngineError(f"model {self.model_name!r} has not started; call start() first.")
        return self._app

    async def check_health(self) -> None:
        """A dead scheduler or detokenizer ends this process through SGLang's own watchdog; here, only its word is asked for."""
        if self._engine is None:
            raise EngineError(f"model {self.model_name!r} has not started; call start() first.")
        manager = self._engine.tokenizer_manager
        if manager.server_status.value == "UnHealthy":
            raise EngineError(f"SGLang says of model {self.model_name!r}: {manager.server_status.value}.")

    async def shutdown(self) -> None:
        await self._stack.aclose()

    @classmethod
    def run_shard(cls, config: EngineConfig) -> None:
        """`SpansNodes`: what SGLang's server does on a further node, a port for its probes included."""
        from sglang.srt.entrypoints.http_server import launch_server

        bind_threads(config)
        port = engine_ports.lease(os.environ)
        parsed = server_arguments(config)
        parsed.port = port.port
        launch_server(parsed)


def bind_threads(config: EngineConfig) -> None:
    """Several ranks on CPUs: SGLang gives each a NUMA node of its own unless told which CPUs, and refuses where there are fewer."""
    if config.ranks > 1 and not config.gpus:
        os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", cpu_groups(config, sorted(os.sched_getaffinity(0))))


def cpu_groups(config: EngineConfig, cpus: list[int]) -> str:
    """A group of CPUs for each rank, as SGLang reads them; the ranks of one node share its CPUs evenly. Pure."""
    here = config.ranks // config.nodes
    size = max(len(cpus) // here, 1)
    taken = [[cpus[(size * (rank % here) + place) % len(cpus)] for place in range(size)] for rank in range(config.ranks)]
    return "|".join(",".join(map(str, group)) for group in taken)


def server_arguments(config: EngineConfig) -> ServerArgs:
    """What ``sglang serve`` would have parsed from the same arguments, defaults included.

    Raises:
        ConfigError: an unknown argument, with the nearest known one; or a value that SGLang refuses.
    """
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    words = ["--model-path", config.model, "--served-model-name", config.name]
    if config.seat:
        address = config.seat.address
        place = f"[{address}]:{config.seat.port}" if ":" in address else f"{address}:{config.seat.port}"
        words += ["--nnodes", str(config.nodes), "--node-rank", str(config.seat.node), "--dist-init-addr", place]
    parsed = arguments.parse(parser, words, config.arguments, model=config.name, engine="SGLang")
    parsed.skip_server_warmup = True  # it would ask a port of its own, which is not open here
    try:
        return ServerArgs.from_cli_args(parsed)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"models[{config.name}].engine_args: {one_line(error)}.") from error
