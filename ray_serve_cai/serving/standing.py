"""Where each model stands, and the whole, as Serve's REST API and the replicas' reports tell it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ray_serve_cai.engines import report
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.serving.room import Shortfall
from ray_serve_cai.state import ModelState

STAGES = ("loading weights", "warming up")
NOWHERE = "waiting for nodes"
TAKING_REQUESTS = ("RUNNING", "PENDING_MIGRATION", "UPDATING")
"""States of a replica; one that waits for its successor on another node, or is being told new limits, still serves."""


def model_state(
    engine: EngineConfig, application: Mapping[str, Any], said: StartReport, *, ready: bool, missing: Shortfall | None = None
) -> ModelState:
    """Where a model stands, from Serve's view of its application, its replica's last report and what `room.shortfalls` found missing."""
    running = running_replicas(application)
    if ready:
        lacks = missing.said if missing and running < engine.replicas else ""
        return ModelState(engine.name, engine.engine, ready=True, state="ready", replicas=running, error=lacks)
    if missing and not missing.placed and not running:
        return ModelState(engine.name, engine.engine, state=NOWHERE, error=missing.said)
    if said.error or application.get("status") == "DEPLOY_FAILED":
        error = said.error or report.last_line(str(application.get("message", "")))
        return ModelState(engine.name, engine.engine, state="failed", replicas=running, error=error)
    stage = "warming up" if running else said.phase
    return ModelState(engine.name, engine.engine, state=stage if stage in STAGES else STAGES[0], replicas=running)


def phase_of(models: tuple[ModelState, ...], was_ready: bool) -> tuple[str, str]:
    """Phase and detail of the whole, from its models."""
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


def is_building(application: Mapping[str, Any]) -> bool:
    """Whether Serve is building the application anew; it then names no deployment, and those it has serve on."""
    return application.get("status") == "DEPLOYING" and not application.get("deployments")


def replicas(application: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All replicas of an application, in whatever state."""
    for deployment in application.get("deployments", {}).values():
        yield from deployment["replicas"]


def running_replicas(application: Mapping[str, Any]) -> int:
    """Replicas that take requests."""
    return sum(replica["state"] in TAKING_REQUESTS for replica in replicas(application))


def replicas_by_node(applications: Mapping[str, Any]) -> Counter[str]:
    """Node id -> replicas there, in whatever state."""
    found = (replica.get("node_id") for application in applications.values() for replica in replicas(application))
    return Counter(node for node in found if node)
