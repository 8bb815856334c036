"""`RayBackend`: start, watch and stop a model from Python. A stable API.

Inside, failures are typed errors; here, and only here, they become the dictionaries that callers of this API know:
a flag that is False, ``error`` with the error's class, and ``message`` with its one line.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from ray_serve_cai import ray_session, sources
from ray_serve_cai.engines import user_config
from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments
from ray_serve_cai.engines.registry import get_registry
from ray_serve_cai.errors import ConfigError, RayServeCaiError
from ray_serve_cai.node import manifest
from ray_serve_cai.serving import direct, replica_logs

logger = logging.getLogger(__name__)

APPLICATION = "ray-backend"
POLL_S = 0.25


class RayBackend:
    """One model on a Ray cluster, behind an OpenAI-compatible HTTP API.

    Args:
        default_engine: engine of models that name none; None for the registry's default, ``vllm``.
    """

    def __init__(self, default_engine: str | None = None) -> None:
        self._default_engine = default_engine
        self._connection: ray_session.Connection | None = None
        self._deployed: EngineConfig | None = None
        self._port = 8000

    @property
    def ray_available(self) -> bool:
        """Whether Ray Serve is installed here."""
        return importlib.util.find_spec("ray") is not None

    async def initialize_ray(self, address: str | None = None) -> dict[str, Any]:
        """Connect to Ray: at ``address``, else at RAY_ADDRESS, else on this machine; where none runs, start it here.

        Returns:
            ``initialized``; then ``mode`` (``local`` if this process started Ray, ``connected``, ``already_initialized``),
            ``address`` (host:port) and ``nodes`` (how many are alive). Otherwise ``error`` and ``message``.
        """
        try:
            self._connection = ray_session.connect(address)
        except RayServeCaiError as error:
            return {"initialized": False} | _failure(error)
        logger.info("Ray: %s, %s, %d nodes", self._connection.mode, self._connection.address, self._connection.nodes)
        return {
            "initialized": True,
            "mode": self._connection.mode,
            "address": self._connection.address,
            "nodes": self._connection.nodes,
        }

    async def start_model(self, vllm_config: Mapping[str, Any], wait_ready: bool = False, engine: str | None = None) -> dict[str, Any]:
        """Deploy a model and return when its replicas run, or have said why they do not. It takes the place of one started before.

        Args:
            vllm_config: keys of `ray_serve_cai.engines.user_config.UserConfig`, for any engine.
            wait_ready: also wait until the HTTP API answers.
            engine: its name; None for ``vllm_config["engine"]``, then the backend's default, then the registry's.

        Returns:
            ``started``; then ``engine``, ``application_name``, ``port``, ``status``, ``model`` (its name in the API) and, with
            ``wait_ready``, what `wait_for_ready` returns. Otherwise ``error`` and ``message``, which names the value.
        """
        try:
            if self._connection is None:
                self._connection = ray_session.connect()
            config, port = await asyncio.to_thread(self._plan, vllm_config, engine)
            await asyncio.to_thread(direct.start_serve, _host(self._connection), port)
            await asyncio.to_thread(direct.deploy, APPLICATION, config, lambda phase: _say(config, phase))
        except RayServeCaiError as error:
            logger.error("model not started: %s", error)
            return {"started": False} | _failure(error)
        self._deployed, self._port = config, port
        result = {
            "started": True,
            "engine": config.engine,
            "application_name": APPLICATION,
            "port": port,
            "status": "running",
            "model": config.name,
        }
        return result | await self.wait_for_ready(port) if wait_ready else result

    def _plan(self, given: Mapping[str, Any], engine: str | None) -> tuple[EngineConfig, int]:
        """Everything that can be known to be wrong before anything is started."""
        if not isinstance(given, Mapping):
            raise ConfigError(f"the configuration is {type(given).__name__}; use a mapping, for example {{'model': 'demo'}}.")
        if engine is not None and not isinstance(engine, str):
            raise ConfigError(f"engine is {engine!r}; use the name of a registered engine, for example vllm.")
        registry, user, nodes = get_registry(), user_config.parse(given), direct.nodes()
        info = registry.get(engine or user.engine or self._default_engine)
        direct.installed_somewhere(info, nodes)
        source = user.model_source
        if info.weights:
            source = sources.resolve(source)
            token = {"HF_TOKEN": user.hf_token.get_secret_value()} if user.hf_token else {}
            sources.check(user.model_source, dict(os.environ) | token)
        use_cpu = not direct.has_gpus(nodes) if user.use_cpu is None else user.use_cpu
        builder = registry.config_builder(info.name)
        complete = dict(given) | {"model": user.model, "model_source": source, "use_cpu": use_cpu}
        valid, message = builder.validate_config(complete)
        if not valid:
            raise ConfigError(str(message))
        config = of_arguments(info, builder.build_config(complete), ranks=user.ranks, use_cpu=use_cpu, replicas=user.num_replicas)
        return direct.placed(config, nodes), user.port

    async def wait_for_ready(self, port: int | None = None, timeout: float = 300) -> dict[str, Any]:
        """Wait until the model answers over HTTP.

        Args:
            port: of the HTTP API; None for the model's.
            timeout: seconds.

        Returns:
            ``ready`` and ``elapsed_time`` in seconds; where it is not ready, also ``error`` (``timeout``), ``message`` and
            ``last_error``, what was seen last.
        """
        started = time.monotonic()
        url = f"http://127.0.0.1:{port or self._port}/health"
        seen = ""
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            while True:
                try:
                    answer = await client.get(url)
                    if answer.status_code == 200:
                        return {"ready": True, "elapsed_time": round(time.monotonic() - started, 1)}
                    seen = f"{url} answered {answer.status_code}"
                except httpx.HTTPError as error:
                    seen = f"{url}: {type(error).__name__}"
                elapsed = round(time.monotonic() - started, 1)
                if elapsed > timeout:
                    message = f"not ready after {elapsed:.0f} s; last seen: {seen}."
                    return {"ready": False, "elapsed_time": elapsed, "error": "timeout", "message": message, "last_error": seen}
                await asyncio.sleep(POLL_S)

    async def stop_model(self) -> dict[str, Any]:
        """Stop the model and wait until its replicas are gone.

        Returns:
            ``stopped``, ``status`` (``stopped``, or ``not_running`` where there was none) and ``application_name``;
            where it failed, ``error`` and ``message``.
        """
        result = {"stopped": True, "application_name": APPLICATION}
        try:
            if self._connection is None or await asyncio.to_thread(direct.status, APPLICATION) is None:
                return result | {"status": "not_running"}
            await asyncio.to_thread(direct.delete, APPLICATION)
        except RayServeCaiError as error:
            return {"stopped": False, "application_name": APPLICATION} | _failure(error)
        self._deployed = None
        return result | {"status": "stopped"}

    async def get_status(self) -> dict[str, Any]:
        """How the model is.

        Returns:
            ``running``, ``status``, ``application_name``, ``deployments`` (each with ``name``, ``status``, ``message``). The status
            is ``running``, ``deploying``, ``unhealthy``, ``deploy_failed``, ``deleting``, ``not_running``, or ``unknown`` with
            ``error`` and ``message``. A model that was started here has ``engine``, ``model`` and ``port``, too.
        """
        absent = {"running": False, "status": "not_running", "application_name": APPLICATION, "deployments": []}
        try:
            found = None if self._connection is None else await asyncio.to_thread(direct.status, APPLICATION)
        except RayServeCaiError as error:
            return absent | {"status": "unknown"} | _failure(error)
        if found is None:
            return absent
        result = {
            "running": found.status == "RUNNING",
            "status": found.status.lower(),
            "application_name": APPLICATION,
            "deployments": [{"name": one.name, "status": one.status, "message": one.message} for one in found.deployments],
        }
        if self._deployed is not None:
            result |= {"engine": self._deployed.engine, "model": self._deployed.name, "port": self._port}
        return result

    async def get_logs(self, tail: int = 100) -> AsyncIterator[str]:
        """The newest lines that the replicas and their engines wrote, oldest first; of a model that failed to start, too.

        Args:
            tail: how many lines at most.
        """
        if self._connection is None:
            return
        try:
            lines = await asyncio.to_thread(replica_logs.read, APPLICATION, tail)
        except RayServeCaiError as error:
            lines = [str(error)]
        for line in lines:
            yield line

    async def shutdown(self) -> None:
        """Stop the model; stop Serve where nothing else runs on it; end Ray where this process started it."""
        if self._connection is None:
            return
        await self.stop_model()
        await asyncio.to_thread(direct.stop_serve)
        if self._connection.mode != "already_initialized":
            ray_session.disconnect()
        self._connection = None

    def close(self) -> None:
        """`shutdown`, for code that is not asynchronous; inside a running event loop it is only begun."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self.shutdown())
            return
        self._closing = loop.create_task(self.shutdown())


def _failure(error: RayServeCaiError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _host(connection: ray_session.Connection) -> str:
    """Loopback for a cluster that this process made on a bare machine; elsewhere other nodes, or a published port, must reach it."""
    given = os.environ.get("RSCAI_HOST", "").strip()
    bare = connection.mode == "local" and not manifest.PATH.exists()
    return given or ("127.0.0.1" if bare else "0.0.0.0")


def _say(config: EngineConfig, phase: str) -> None:
    logger.info("model %s: %s", config.name, phase)


ray_backend = RayBackend()
"""The instance that most callers use."""
