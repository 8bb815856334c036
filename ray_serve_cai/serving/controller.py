"""The head's serving process: wait for the nodes, apply the configuration, watch it, and write down what it sees.

It is the only writer of the Serve configuration. Its state goes to one file, which the launcher's status server reads.
Longer than most modules: what is looked at and what it means stand side by side.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ray_serve_cai import labels, state
from ray_serve_cai.config import Config
from ray_serve_cai.engines import report
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.errors import EngineError, UnavailableError
from ray_serve_cai.serving import app, replica_logs
from ray_serve_cai.state import ClusterState, ModelState, NodeState

if TYPE_CHECKING:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

logger = logging.getLogger(__name__)

POLL_S = 0.5
CALM_POLL_S = 2.0
DASHBOARD_TIMEOUT_S = 60
PROGRESS_S = 30
UNREADABLE_S = 10
LOST_S = 40
STAGES = ("loading weights", "warming up")
NOWHERE = "waiting for nodes"


@dataclass(frozen=True)
class ServeSettings:
    """What the serving process is told. ``ray_address`` is host:port of the GCS; ports are those of the node's plan."""

    ray_address: str
    min_nodes: int
    serve_port: int
    dashboard_port: int
    state_file: Path


def run(config: Config, engines: list[EngineConfig], settings: ServeSettings) -> None:
    """Serve until the process is ended.

    Raises:
        RayServeCaiError: the first deployment of every model failed; the error is the replica's own.
    """
    import ray
    from ray import serve

    ray.init(address=settings.ray_address, namespace="ray-serve-cai", logging_level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # Ray's own handler would print a C++ stack
    watch = Watch(config, engines, settings)
    watch.wait_for_nodes()
    watch.say("starting serve", "starting Ray Serve")
    schema = app.serve_schema(config, engines, port=settings.serve_port)
    serve.start(proxy_location=schema["proxy_location"], http_options=schema["http_options"])
    client = _connect(settings)
    client.deploy_applications(schema)
    watch.follow(client)


def _connect(settings: ServeSettings) -> ServeSubmissionClient:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    deadline = time.monotonic() + DASHBOARD_TIMEOUT_S
    while True:
        try:
            return ServeSubmissionClient(f"http://127.0.0.1:{settings.dashboard_port}")
        except (ConnectionError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"Ray's dashboard does not answer on port {settings.dashboard_port}: {error}.") from error
            time.sleep(POLL_S)


class Watch:
    """Looks at Ray and Serve again and again and writes what it sees; raises when nothing can come of it."""

    def __init__(self, config: Config, engines: list[EngineConfig], settings: ServeSettings) -> None:
        self._config = config
        self._engines = engines
        self._settings = settings
        self._state = ClusterState(expected=settings.min_nodes, models=tuple(ModelState(engine.name, engine.engine) for engine in engines))
        self._answered: set[str] = set()

    def say(self, phase: str, detail: str, **changes: Any) -> None:
        """Write the state; a new phase or detail is logged."""
        before, self._state = self._state, replace(self._state, phase=phase, detail=detail, **changes)
        if (before.phase, before.detail) != (phase, detail):
            logger.info("%s: %s", phase, detail)
        if before.alive != self._state.alive and before.was_ready:
            level = logging.INFO if self._state.alive > before.alive else logging.WARNING
            logger.log(level, "nodes alive: %d, were %d", self._state.alive, before.alive)
        state.write(self._settings.state_file, self._state)

    def wait_for_nodes(self) -> None:
        """Hold back deploying until the configured number of nodes is alive."""
        spoke = time.monotonic()
        while True:
            nodes = _nodes(Counter())
            alive, wanted = sum(node.alive for node in nodes), self._settings.min_nodes
            self.say("waiting for nodes", f"nodes joined {alive}/{wanted}", nodes=nodes)
            if alive >= wanted:
                return
            if time.monotonic() - spoke > PROGRESS_S:
                spoke = time.monotonic()
                logger.info("still waiting for nodes: %d of %d joined", alive, wanted)
            time.sleep(POLL_S)

    def follow(self, client: ServeSubmissionClient) -> None:
        """Watch for ever.

        Raises:
            RayServeCaiError: every model failed before all of them were ever ready, or Ray is gone.
        """
        readable = time.monotonic()
        while True:
            try:
                applications = client.get_serve_details()["applications"]
            except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                self.cannot_look(time.monotonic() - readable, error)
                time.sleep(CALM_POLL_S)
                continue
            readable = time.monotonic()
            self.look(applications)
            time.sleep(CALM_POLL_S if self._state.phase == "ready" else POLL_S)

    def cannot_look(self, for_s: float, error: Exception) -> None:
        """What it means that Serve's state cannot be read for so many seconds.

        Raises:
            UnavailableError: it lasts; whoever restarts this node starts Ray anew.
        """
        if for_s > LOST_S:
            raise UnavailableError(f"Ray on this node does not answer for {LOST_S} s; the node leaves, to be started anew ({error}).")
        if for_s > UNREADABLE_S:
            models = tuple(replace(model, ready=False, state="unknown") for model in self._state.models)
            self._answered.clear()
            self.say("degraded", "Ray on this node does not answer", models=models)

    def look(self, applications: Mapping[str, Any]) -> None:
        """One look at Serve's applications, as its REST API gives them."""
        nodes = _nodes(replicas_by_node(applications))
        models = tuple(self._look_at(prefix, engine, applications.get(name, {}), nodes) for name, prefix, engine in self._applications())
        was_ready = self._state.was_ready or all(model.ready for model in models)
        phase, detail = phase_of(models, was_ready)
        self.say(phase, detail, models=models, nodes=nodes, was_ready=was_ready)
        if not was_ready and all(model.state == "failed" for model in models):
            failed = models[0]
            raise report.read(failed.name).as_error() or EngineError(f"model {failed.name!r} did not start: {failed.error}")

    def _applications(self) -> list[tuple[str, str, EngineConfig]]:
        return [
            (app.application_name(model), app.route_prefix(self._config, model), engine)
            for model, engine in zip(self._config.models, self._engines, strict=True)
        ]

    def _look_at(self, prefix: str, engine: EngineConfig, application: Mapping[str, Any], nodes: Sequence[NodeState]) -> ModelState:
        running = running_replicas(application)
        if not running:
            self._answered.discard(engine.name)
        elif engine.name not in self._answered and answers(self._settings.serve_port, prefix):
            self._answered.add(engine.name)
        ready, said = engine.name in self._answered, report.read(engine.name)
        if (
            application.get("status") == "DEPLOY_FAILED"
            and not said.error
            and (reason := replica_logs.last_error(application.get("name", "")))
        ):
            said = StartReport(error=f"model {engine.name!r} did not start: {reason}", error_type="EngineError")
            report.write(engine.name, said)
        return model_state(engine, application, said, ready=ready, nowhere=why_nowhere(engine, nodes))


def why_nowhere(engine: EngineConfig, nodes: Sequence[NodeState]) -> str:
    """Why no node can run the model; empty where one has its engine. Pure."""
    there = sorted({name for node in nodes if node.alive for name in node.engines})
    if engine.engine in there or not engine.labelled:
        return ""
    known = ", ".join(there) or "none"
    return f"engine {engine.engine!r} is installed on no node; installed: {known}; start a node from an image that has it."


def model_state(engine: EngineConfig, application: Mapping[str, Any], said: StartReport, *, ready: bool, nowhere: str = "") -> ModelState:
    """Where a model stands, from Serve's view of its application, its replica's last report and `why_nowhere`'s word. Pure."""
    running = running_replicas(application)
    if ready:
        return ModelState(engine.name, engine.engine, ready=True, state="ready", replicas=running)
    if nowhere and not running:
        return ModelState(engine.name, engine.engine, state=NOWHERE, error=nowhere)
    if said.error or application.get("status") == "DEPLOY_FAILED":
        error = said.error or report.last_line(str(application.get("message", "")))
        return ModelState(engine.name, engine.engine, state="failed", replicas=running, error=error)
    stage = "warming up" if running else said.phase
    return ModelState(engine.name, engine.engine, state=stage if stage in STAGES else STAGES[0], replicas=running)


def phase_of(models: tuple[ModelState, ...], was_ready: bool) -> tuple[str, str]:
    """Phase and detail of the whole, from its models. Pure."""
    waiting = [model for model in models if not model.ready]
    if not waiting:
        return "ready", "every model answers"
    stuck = [model for model in waiting if model.error]
    if all(model.state == "failed" for model in models):
        return "failed", stuck[0].error
    if stuck:
        nowhere = not was_ready and all(model.state == NOWHERE for model in models)
        return NOWHERE if nowhere else "degraded", f"{stuck[0].name}: {stuck[0].error}"
    names = ", ".join(model.name for model in waiting)
    if was_ready:
        return "degraded", f"not answering: {names}"
    stage = next((name for name in STAGES if any(model.state == name for model in waiting)), STAGES[0])
    return stage, f"{stage}: {names}"


def running_replicas(application: Mapping[str, Any]) -> int:
    """Replicas that take requests; one that waits for its successor on another node still does."""
    deployments = application.get("deployments", {}).values()
    return sum(replica["state"] in ("RUNNING", "PENDING_MIGRATION") for deployment in deployments for replica in deployment["replicas"])


def replicas_by_node(applications: Mapping[str, Any]) -> Counter[str]:
    """Node id -> replicas there, in whatever state."""
    return Counter(
        replica["node_id"]
        for application in applications.values()
        for deployment in application.get("deployments", {}).values()
        for replica in deployment["replicas"]
        if replica.get("node_id")
    )


def answers(port: int, prefix: str) -> bool:
    """Whether a replica is reachable through Ray's ingress; it has generated its first token before that."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{prefix.rstrip('/')}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _nodes(replicas: Counter[str]) -> tuple[NodeState, ...]:
    import ray

    return tuple(
        NodeState(
            id=node["NodeID"],
            ip=node["NodeManagerAddress"],
            alive=node["Alive"],
            role=node.get("Labels", {}).get(labels.ROLE, ""),
            replicas=replicas[node["NodeID"]],
            engines=tuple(labels.engines(node.get("Labels", {}))),
        )
        for node in ray.nodes()
    )
