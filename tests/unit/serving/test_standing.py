from collections import Counter
from typing import Any

import pytest

from ray_serve_cai import state
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.serving import standing
from ray_serve_cai.serving.room import Shortfall
from ray_serve_cai.state import ModelState

ENGINE = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={})


def application(*states: str, status: str = "DEPLOYING", message: str = "") -> dict[str, Any]:
    replicas = [{"state": one, "node_id": f"n{number}"} for number, one in enumerate(states)]
    return {"status": status, "message": message, "deployments": {"engine": {"replicas": replicas}}}


def model(name: str, stage: str = "", *, ready: bool = False, error: str = "") -> ModelState:
    return ModelState(name, "vllm", ready=ready, state="ready" if ready else "failed" if error else stage, error=error)


@pytest.mark.parametrize(
    ("seen", "said", "ready", "expected"),
    [
        pytest.param({}, StartReport(), False, ("loading weights", 0, ""), id="not there yet"),
        pytest.param(application("STARTING"), StartReport(phase="loading weights"), False, ("loading weights", 0, ""), id="loading"),
        pytest.param(application("STARTING"), StartReport(phase="warming up"), False, ("warming up", 0, ""), id="warming up"),
        pytest.param(application("STARTING"), StartReport(phase="ready"), False, ("loading weights", 0, ""), id="replaced"),
        pytest.param(application("RUNNING"), StartReport(phase="ready"), False, ("warming up", 1, ""), id="running, not answering"),
        pytest.param(application("RUNNING", "RUNNING", "STARTING"), StartReport(phase="ready"), True, ("ready", 2, ""), id="ready"),
        pytest.param(application("RUNNING"), StartReport(error="old"), True, ("ready", 1, ""), id="ready in spite of an old error"),
        pytest.param(application("STARTING"), StartReport(error="no memory"), False, ("failed", 0, "no memory"), id="the replica's error"),
        pytest.param(
            application(status="DEPLOY_FAILED", message="Traceback\n  x\nBoom: why\n\n"), StartReport(), False, ("failed", 0, "Boom: why"), id="Serve's"
        ),
        pytest.param(application(status="DEPLOY_FAILED"), StartReport(), False, ("failed", 0, "it did not say why"), id="no message"),
    ],
)  # fmt: skip
def test_where_a_model_stands(seen: dict[str, Any], said: StartReport, ready: bool, expected: tuple[str, int, str]) -> None:
    found = standing.model_state(ENGINE, seen, said, ready=ready)
    assert (found.state, found.replicas, found.error) == expected
    assert found.ready is ready
    assert (found.name, found.engine) == ("demo", "vllm")


@pytest.mark.parametrize(
    ("states", "ready", "expected"),
    [
        pytest.param(["STARTING"], False, ("waiting for nodes", 0, "no room; add nodes."), id="none runs"),
        pytest.param(["RUNNING", "STARTING"], True, ("ready", 1, "no room; add nodes."), id="fewer run than are wanted"),
        pytest.param(["RUNNING", "RUNNING"], True, ("ready", 2, ""), id="all run"),
        pytest.param(["RUNNING"], False, ("warming up", 1, ""), id="one does not answer yet"),
    ],
)
def test_where_a_model_stands_that_misses_something(states: list[str], ready: bool, expected: tuple[str, int, str]) -> None:
    engine = ENGINE.model_copy(update={"replicas": 2})
    found = standing.model_state(engine, application(*states), StartReport(), ready=ready, missing=Shortfall(0, "no room", "add nodes"))
    assert (found.state, found.replicas, found.error) == expected


@pytest.mark.parametrize(
    ("seen", "said", "expected"),
    [
        (application("STARTING"), StartReport(phase="warming up"), ("warming up", "")),
        (application("STARTING"), StartReport(error="no memory"), ("failed", "no memory")),
        (application(status="DEPLOY_FAILED", message="Boom"), StartReport(), ("failed", "Boom")),
    ],
    ids=["stage", "the replica's error", "Serve's"],
)
def test_room_for_some_hides_neither_stage_nor_failure(seen: dict[str, Any], said: StartReport, expected: tuple[str, str]) -> None:
    engine = ENGINE.model_copy(update={"replicas": 2})
    found = standing.model_state(engine, seen, said, ready=False, missing=Shortfall(1, "there is room for 1 of 2 replicas", "add nodes"))
    assert (found.state, found.error) == expected


@pytest.mark.parametrize(
    ("seen", "building"),
    [
        ({"status": "DEPLOYING", "deployments": {}}, True),
        ({"status": "DEPLOYING"}, True),
        (application("RUNNING", status="DEPLOYING"), False),
        (application("RUNNING", status="RUNNING"), False),
        ({"status": "DEPLOY_FAILED", "deployments": {}}, False),
        ({"status": "NOT_STARTED", "deployments": {}}, False),
        ({}, False),
    ],
    ids=["no deployments", "none named", "a new replica starts", "running", "failed", "not begun", "not there"],
)
def test_whether_serve_builds_an_application(seen: dict[str, Any], building: bool) -> None:
    assert standing.is_building(seen) is building


NOWHERE = ModelState("far", "sglang", state="waiting for nodes", error="no node")


@pytest.mark.parametrize(
    ("models", "was_ready", "expected"),
    [
        ([model("a", ready=True), model("b", ready=True)], False, ("ready", "every model answers")),
        ([model("a", "loading weights"), model("b", "warming up")], False, ("loading weights", "loading weights: a, b")),
        ([model("a", "warming up"), model("b", ready=True)], False, ("warming up", "warming up: a")),
        ([model("a", "waiting")], False, ("loading weights", "loading weights: a")),
        ([model("a", "loading weights"), model("b", ready=True)], True, ("degraded", "not answering: a")),
        ([model("a", error="why"), model("b", "warming up")], False, ("degraded", "a: why")),
        ([model("a", error="why"), model("b", ready=True)], True, ("degraded", "a: why")),
        ([model("a", error="why"), model("b", error="too")], False, ("failed", "why")),
        ([NOWHERE], False, ("waiting for nodes", "far: no node")),
        ([NOWHERE], True, ("degraded", "far: no node")),
        ([NOWHERE, model("b", "loading weights")], False, ("degraded", "far: no node")),
        ([NOWHERE, NOWHERE], False, ("waiting for nodes", "far: no node")),
        ([NOWHERE, model("b", error="why")], False, ("degraded", "far: no node")),
    ],
)
def test_the_phase_of_the_whole(models: list[ModelState], was_ready: bool, expected: tuple[str, str]) -> None:
    phase, detail = standing.phase_of(tuple(models), was_ready)
    assert (phase, detail) == expected
    assert phase in state.PHASES


def test_counting_replicas() -> None:
    applications = {"a": application("RUNNING", "STARTING"), "b": application("STOPPING"), "c": {"status": "NOT_STARTED"}}
    assert standing.running_replicas(applications["a"]) == 1
    assert standing.running_replicas(application("PENDING_MIGRATION", "RUNNING")) == 2
    assert standing.running_replicas(applications["c"]) == 0
    assert standing.replicas_by_node(applications) == Counter({"n0": 2, "n1": 1})


def test_a_replica_without_a_node_counts_nowhere() -> None:
    seen = {"a": {"deployments": {"engine": {"replicas": [{"state": "STARTING", "node_id": None}]}}}}
    assert standing.replicas_by_node(seen) == Counter()
