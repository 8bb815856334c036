"""The Serve replica that every engine runs in, and the factory that places it. Importing this imports Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import httpx
from pydantic import SecretStr
from ray import serve

from ray_serve_cai import labels, logs
from ray_serve_cai.engines import gang, leftovers, middleware, report, sealed
from ray_serve_cai.engines.base import ASGIApp
from ray_serve_cai.engines.engine_config import DEPLOYMENT, EngineConfig, Limits
from ray_serve_cai.engines.gate import Gate
from ray_serve_cai.engines.memory import check_memory
from ray_serve_cai.engines.registry import engine_class
from ray_serve_cai.errors import EngineError, RayServeCaiError, one_line

logger = logging.getLogger("ray.serve")

WARM_UP_TIMEOUT_S = 300
_WARM_UP = (
    ("/v1/completions", {"prompt": "Hello", "max_tokens": 1, "temperature": 0}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0}),
    ("/v1/embeddings", {"input": "Hello"}),
    ("/pooling", {"input": "Hello"}),
    ("/classify", {"input": "Hello"}),
    ("/score", {"text_1": "Hello", "text_2": "Hello"}),
)
"""Requests that make a model work once; the first of them that the engine accepts counts. Greedy: no random number is used up."""


@serve.ingress()
class Replica:
    """One replica: the engine, and its own HTTP application behind Serve's ingress."""

    async def __init__(self, config: dict[str, Any], hf_token: SecretStr | None = None) -> None:  # type: ignore[misc]  # Serve awaits it
        logs.outlive_configuration(logger)
        self._config = EngineConfig.model_validate(config)
        self._started = False
        self._gate = Gate(self._config.limits)
        name = self._config.name
        if hf_token is not None:
            os.environ["HF_TOKEN"] = hf_token.get_secret_value()
        try:
            self._report("loading weights")
            self._config = sealed.unseal(self._config, sealed.get)
            logs.hide(sealed.values(self._config))
            check_memory(self._config)
            undertaker = leftovers.Undertaker() if self._config.ranks > 1 else None
            self._gather()
            self._engine = engine_class(self._config.info)(self._config)  # type: ignore[call-arg]
            await self._engine.start(self._report)
            if undertaker:
                undertaker.remember()
            self._report("warming up")
            key = self._config.arguments.get("api_key") or os.environ.get("VLLM_API_KEY")  # which vLLM asks for then
            await warm_up(self._engine.asgi_app(), name, key)
        except Exception as error:  # whatever it is, Serve's own message would not say it
            self._tell(error if isinstance(error, RayServeCaiError) else _unforeseen(error, name))
            raise
        self._started = True
        self._report("ready")

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return middleware.around(self._engine.asgi_app(), self._engine, self._config, self._gate)

    def reconfigure(self, limits: dict[str, Any]) -> None:
        """Called by Serve with the deployment's ``user_config``, after the constructor and at each change."""
        self._gate.renew(Limits.model_validate(limits))

    async def check_health(self) -> None:
        """Called by Serve; raising replaces the replica."""
        await self._engine.check_health()

    async def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            await engine.shutdown()

    def _gather(self) -> None:
        """Start the ranks of the other nodes, where there are any."""
        if self._config.nodes > 1:
            self._config, self._lease = gang.seated(self._config)
            self._gang = gang.Gang(self._config, self._lost)

    def _lost(self, reason: Exception) -> None:
        """Without all of its ranks a replica answers nothing more: end at once, so that nobody waits and Serve makes another."""
        name = self._config.name
        logger.error("model %s: %s; the replica ends", name, reason)
        if isinstance(reason, EngineError) and not self._started:
            self._tell(EngineError(f"model {name!r} did not start: {reason}"))
        logging.shutdown()
        os._exit(1)

    def _tell(self, error: RayServeCaiError) -> None:
        """Why it did not start; unless another program took the leased port, since Serve's next try leases another."""
        if self._config.nodes > 1 and port_taken(error):
            logger.warning("model %s: the port of its ranks was taken meanwhile; trying another", self._config.name)
            return
        report.write(self._config.name, report.StartReport(error=str(error), error_type=type(error).__name__))

    def _report(self, phase: str) -> None:
        logger.info("model %s: %s", self._config.name, phase)
        report.write(self._config.name, report.StartReport(phase=phase))


class ReplicaFactory:
    """`DeploymentFactoryProtocol` for every engine."""

    def create_deployment(self, engine_config: EngineConfig) -> serve.Application:
        """One actor per replica with all its GPUs; it prefers worker nodes, and takes the head where there is no other.

        A replica that spans nodes takes a group of equal shares, each on a node of its own; its actor is in the first.
        """
        deployment = serve.deployment(
            Replica,
            name=DEPLOYMENT,
            health_check_period_s=2,
            health_check_timeout_s=30,
            max_constructor_retry_count=3,
            **placement(engine_config),
            **engine_config.options(),
        )
        return deployment.bind(engine_config.heavy().model_dump(), engine_config.hf_token)


def placement(config: EngineConfig) -> dict[str, Any]:
    """Serve's options for where a replica goes: exactly its GPUs, on nodes whose image has the engine."""
    share = config.share
    actor: dict[str, Any] = {"num_cpus": share["CPU"], "num_gpus": share.get("GPU", 0)}
    engine = labels.engine(config.engine) if config.labelled else {}
    if config.nodes > 1:
        group = {"placement_group_bundles": [share] * config.nodes, "placement_group_strategy": "STRICT_SPREAD"}
        selectors = {"placement_group_bundle_label_selector": [engine] * config.nodes} if engine else {}
        return {"ray_actor_options": actor, **group, **selectors}
    if engine:
        actor |= {"label_selector": engine | {labels.ROLE: "worker"}, "fallback_strategy": [{"label_selector": engine}]}
    return {"ray_actor_options": actor}


def port_taken(error: Exception) -> bool:
    """Whether an engine could not listen, in the words of Linux or of PyTorch's store."""
    said = str(error).lower()
    return "eaddrinuse" in said or "address already in use" in said


def _unforeseen(error: Exception, model: str) -> EngineError:
    return EngineError(f"model {model!r} did not start: {type(error).__name__}: {one_line(error)}")


async def warm_up(app: ASGIApp, model: str, api_key: str | list[str] | None = None) -> None:
    """Make the model generate, or embed, once: kernels, caches and templates are loaded before anyone waits for them.

    Args:
        api_key: the key, or keys, that the engine was told to ask for.

    Raises:
        EngineError: the engine accepted none of the requests, or failed on one.
    """
    key = api_key[0] if isinstance(api_key, list) else api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    seen = []
    async with httpx.AsyncClient(transport=transport, base_url="http://replica", headers=headers) as client:
        for path, body in _WARM_UP:
            try:
                answer = await asyncio.wait_for(client.post(path, json={"model": model, **body}), WARM_UP_TIMEOUT_S)
            except asyncio.TimeoutError:
                seen.append(f"{path} did not answer within {WARM_UP_TIMEOUT_S} s")
                break
            if answer.is_success:
                return
            seen.append(f"{path} -> {answer.status_code} {answer.text[:200]}")
            if answer.is_server_error:
                break
    raise EngineError(f"model {model!r} did not generate a first token: {'; '.join(seen)}.")
