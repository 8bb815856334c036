"""The head's serving process: wait for the nodes, apply the configuration, watch it, and write down what it sees.

It is the only writer of the Serve configuration. Its state goes to one file, which the launcher's status server reads.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ray_serve_cai import state
from ray_serve_cai.config import Config
from ray_serve_cai.engines import report, sealed
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.errors import EngineError, UnavailableError
from ray_serve_cai.serving import app, deployed, ray_nodes, replica_logs, room
from ray_serve_cai.serving.mailbox import Mailbox
from ray_serve_cai.serving.room import Shortfall
from ray_serve_cai.serving.standing import is_building, model_state, phase_of, replicas_by_node, running_replicas
from ray_serve_cai.serving.updates import Desired, Updates
from ray_serve_cai.state import ClusterState, ModelState, ReplicaState

if TYPE_CHECKING:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

logger = logging.getLogger(__name__)

POLL_S = 0.5
CALM_POLL_S = 2.0
DASHBOARD_TIMEOUT_S = 60
PROGRESS_S = 30
UNREADABLE_S = 10
LOST_S = 40


@dataclass(frozen=True)
class ServeSettings:
    """What the serving process is told. ``ray_address`` is host:port of the GCS; ports are those of the node's plan.

    ``alone`` means that no other node can join; ``deployed_file`` is where a configuration outlives this process.
    """

    ray_address: str
    min_nodes: int
    serve_port: int
    dashboard_port: int
    state_file: Path
    deployed_file: Path
    alone: bool = False
    min_gpus: int = 0
    serve_host: str = "0.0.0.0"


def run(given: Config, build: Callable[[Config], list[EngineConfig]], settings: ServeSettings) -> None:
    """Serve until the process is ended.

    Args:
        given: the configuration that this head was started with.
        build: a configuration's engines, as they are deployed here.

    Raises:
        RayServeCaiError: the first deployment of every model failed; the error is the replica's own.
    """
    import ray
    from ray import serve

    desired = Desired(*deployed.current(settings.deployed_file, given, build))
    for note in app.notes(desired.config, desired.engines):
        logger.info("%s", note)
    ray.init(address=settings.ray_address, namespace="ray-serve-cai", logging_level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # Ray's own handler would print a C++ stack
    box = Mailbox(settings.state_file.parent)
    box.clear()
    watch = Watch(desired, settings)
    watch.wait_for_nodes()
    watch.say("starting serve", "starting Ray Serve")

    def schema_of(config: Config, engines: list[EngineConfig]) -> dict[str, Any]:
        return app.serve_schema(config, engines, port=settings.serve_port, host=settings.serve_host)

    schema = schema_of(desired.config, desired.engines)
    serve.start(proxy_location=schema["proxy_location"], http_options=schema["http_options"])
    client = _connect(settings)

    def apply(wanted: Desired) -> None:
        client.deploy_applications(schema_of(wanted.config, [sealed.seal(engine, sealed.put) for engine in wanted.engines]))
        watch.desired = wanted

    def keep(config: Config) -> None:
        deployed.keep(settings.deployed_file, given, config)

    apply(desired)
    updates = Updates(
        desired,
        box,
        build=build,
        apply=apply,
        keep=keep,
        answers=watch.answers,
        nodes=ray_nodes.with_what_is_free,
        groups=lambda: ray_nodes.groups(watch.desired.engines),
    )
    watch.follow(client, updates)


def _connect(settings: ServeSettings) -> ServeSubmissionClient:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    deadline = time.monotonic() + DASHBOARD_TIMEOUT_S
    while True:
        try:
            return ServeSubmissionClient(f"http://localhost:{settings.dashboard_port}")
        except (ConnectionError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"Ray's dashboard does not answer on port {settings.dashboard_port}: {error}.") from error
            time.sleep(POLL_S)


class Watch:
    """Looks at Ray and Serve again and again and writes what it sees; raises when nothing can come of it."""

    def __init__(self, desired: Desired, settings: ServeSettings) -> None:
        self.desired = desired
        self._settings = settings
        waiting = tuple(ModelState(engine.name, engine.engine) for engine in desired.engines)
        self._state = ClusterState(expected=settings.min_nodes, models=waiting, files=app.files(desired.engines))
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
        """Hold back deploying until the configured numbers of nodes and GPUs are there.

        Raises:
            ResourceError: a model does not fit on the only node that there will ever be.
        """
        spoke = time.monotonic()
        while True:
            nodes = ray_nodes.nodes(Counter(), {})
            alive, wanted = sum(node.alive for node in nodes), self._settings.min_nodes
            gpus, enough = int(sum(node.gpus for node in nodes if node.alive)), self._settings.min_gpus
            seen = f"nodes joined {alive}/{wanted}" + (f", GPUs {gpus}/{enough}" if enough else "")
            self.say("waiting for nodes", seen, nodes=nodes)
            if alive >= wanted and gpus >= enough:
                break
            if time.monotonic() - spoke > PROGRESS_S:
                spoke = time.monotonic()
                logger.info("still waiting for nodes: %s", seen)
            time.sleep(POLL_S)
        if self._settings.alone:
            room.check_alone(self.desired.engines, nodes[0])

    def follow(self, client: ServeSubmissionClient, updates: Updates) -> None:
        """Watch for ever.

        Raises:
            RayServeCaiError: every model failed before all of them were ever ready, or Ray is gone.
        """
        readable = time.monotonic()
        while True:
            try:
                applications = client.get_serve_details()["applications"]
                named = {name: engine.name for name, engine in self.desired.applications().items()}
                replicas = ray_nodes.replicas(named)
            except (OSError, RuntimeError, UnavailableError) as error:  # requests' errors are OSErrors
                self.cannot_look(time.monotonic() - readable, error)
                time.sleep(CALM_POLL_S)
                continue
            readable = time.monotonic()
            self.look(applications, replicas)
            updates.look(applications)
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

    def answers(self, model: str) -> bool:
        """Whether the model has answered through the ingress since it last had no replica."""
        return model in self._answered

    def look(self, applications: Mapping[str, Any], replicas: tuple[ReplicaState, ...] = ()) -> None:
        """One look at Serve's applications, as its REST API gives them, and at where replicas answer."""
        nodes = ray_nodes.nodes(replicas_by_node(applications), ray_nodes.groups(self.desired.engines))
        missing = room.shortfalls(self.desired.engines, nodes)
        models = tuple(
            self._look_at(app.route_prefix(self.desired.config, model), engine, applications.get(name, {}), missing.get(engine.name))
            for model, (name, engine) in zip(self.desired.config.models, self.desired.applications().items(), strict=True)
        )
        was_ready = self._state.was_ready or all(model.ready for model in models)
        phase, detail = phase_of(models, was_ready)
        files = app.files(self.desired.engines)
        self.say(phase, detail, models=models, nodes=nodes, files=files, replicas=replicas, was_ready=was_ready)
        if not was_ready and all(model.state == "failed" for model in models):
            failed = models[0]
            raise report.read(failed.name).as_error() or EngineError(f"model {failed.name!r} did not start: {failed.error}")

    def _look_at(self, prefix: str, engine: EngineConfig, application: Mapping[str, Any], missing: Shortfall | None) -> ModelState:
        if engine.name in self._answered and is_building(application):
            return next(model for model in self._state.models if model.name == engine.name)
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
        return model_state(engine, application, said, ready=ready, missing=missing)


def answers(port: int, prefix: str) -> bool:
    """Whether a replica is reachable through Ray's ingress; it has generated its first token before that."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{prefix.rstrip('/')}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
