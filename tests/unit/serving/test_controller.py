from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ray_serve_cai import config, state
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.errors import EngineError, ResourceError, UnavailableError
from ray_serve_cai.serving import controller
from ray_serve_cai.serving.controller import ServeSettings, Watch
from ray_serve_cai.state import ModelState, NodeState

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
    found = controller.model_state(ENGINE, seen, said, ready=ready)
    assert (found.state, found.replicas, found.error) == expected
    assert found.ready is ready
    assert (found.name, found.engine) == ("demo", "vllm")


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
    phase, detail = controller.phase_of(tuple(models), was_ready)
    assert (phase, detail) == expected
    assert phase in state.PHASES


def test_where_the_engines_need_no_labels() -> None:
    assert controller.why_nowhere(ENGINE.model_copy(update={"labelled": False}), []) == ""
    assert "installed: none;" in controller.why_nowhere(ENGINE, [])


def test_counting_replicas() -> None:
    applications = {"a": application("RUNNING", "STARTING"), "b": application("STOPPING"), "c": {"status": "NOT_STARTED"}}
    assert controller.running_replicas(applications["a"]) == 1
    assert controller.running_replicas(application("PENDING_MIGRATION", "RUNNING")) == 2
    assert controller.running_replicas(applications["c"]) == 0
    assert controller.replicas_by_node(applications) == Counter({"n0": 2, "n1": 1})


def test_a_replica_without_a_node_counts_nowhere() -> None:
    seen = {"a": {"deployments": {"engine": {"replicas": [{"state": "STARTING", "node_id": None}]}}}}
    assert controller.replicas_by_node(seen) == Counter()


@pytest.fixture
def ingress() -> Iterator[tuple[int, list[str]]]:
    """Ray's ingress with one model at /models/a, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/models/a/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def test_whether_a_model_answers(ingress: tuple[int, list[str]], free_port: int) -> None:
    port, asked = ingress
    assert controller.answers(port, "/models/a")
    assert not controller.answers(port, "/")
    assert asked == ["/models/a/health", "/health"]
    assert not controller.answers(free_port, "/")


class Cluster:
    """What Ray, Serve and the replicas would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        self.answering: set[str] = set()
        self.nodes: tuple[NodeState, ...] = (NodeState("n0", "10.0.0.1", True, engines=("vllm",)),)
        self.reports: dict[str, StartReport] = {}
        self.file = file
        monkeypatch.setattr(controller, "answers", lambda port, prefix: prefix in self.answering)
        monkeypatch.setattr(controller, "_nodes", lambda replicas: self.nodes)
        monkeypatch.setattr(controller.report, "read", lambda name: self.reports.get(name, StartReport()))

    @property
    def state(self) -> state.ClusterState:
        return state.read(self.file)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    return Cluster(monkeypatch, tmp_path / "state.json")


def watch_of(cluster: Cluster, *names: str, min_nodes: int = 1) -> Watch:
    given = config.parse({"models": [{"source": name} for name in names]}, "my.yaml")
    engines = [ENGINE.model_copy(update={"name": name}) for name in names]
    return Watch(given, engines, ServeSettings("10.0.0.1:6379", min_nodes, 8001, 8265, cluster.file))


def test_a_models_way_to_ready_and_back(cluster: Cluster) -> None:
    watch = watch_of(cluster, "a")
    watch.look({})
    assert cluster.state.phase == "loading weights"
    watch.look({"a": application("RUNNING")})
    assert (cluster.state.phase, cluster.state.ready) == ("warming up", False)
    cluster.answering = {"/"}
    watch.look({"a": application("RUNNING")})
    assert (cluster.state.phase, cluster.state.ready, cluster.state.was_ready) == ("ready", True, True)
    cluster.answering = set()
    watch.look({"a": application("RUNNING")})  # it is not asked again while its replica runs
    assert cluster.state.ready
    watch.look({"a": application("STARTING")})
    assert (cluster.state.phase, cluster.state.detail, cluster.state.ready) == ("degraded", "not answering: a", False)
    watch.look({"a": application("RUNNING")})
    assert not cluster.state.ready
    cluster.answering = {"/"}
    watch.look({"a": application("RUNNING")})
    assert cluster.state.phase == "ready"


def test_each_model_is_asked_at_its_own_prefix(cluster: Cluster) -> None:
    cluster.answering = {"/models/b"}
    watch_of(cluster, "a", "b").look({"a": application("RUNNING"), "b": application("RUNNING")})
    assert [one.ready for one in cluster.state.models] == [False, True]


def test_a_first_start_that_fails_ends_with_the_replicas_own_error(cluster: Cluster) -> None:
    cluster.reports["a"] = StartReport(error="no memory", error_type="ResourceError")
    with pytest.raises(ResourceError, match="no memory"):
        watch_of(cluster, "a").look({"a": application("STARTING")})
    assert (cluster.state.phase, cluster.state.detail) == ("failed", "no memory")


def test_a_first_start_that_fails_without_a_report(cluster: Cluster) -> None:
    with pytest.raises(EngineError, match="model 'a' did not start: Boom"):
        watch_of(cluster, "a").look({"a": application(status="DEPLOY_FAILED", message="x\nBoom")})


def test_one_model_of_two_may_fail(cluster: Cluster) -> None:
    cluster.reports["a"] = StartReport(error="no memory", error_type="ResourceError")
    cluster.answering = {"/models/b"}
    watch_of(cluster, "a", "b").look({"b": application("RUNNING")})
    assert (cluster.state.phase, cluster.state.detail) == ("degraded", "a: no memory")


def test_a_model_whose_engine_no_node_has_waits_and_says_so(cluster: Cluster) -> None:
    cluster.nodes = (NodeState("n0", "10.0.0.1", True, engines=("sglang",)), NodeState("n1", "10.0.0.2", False, engines=("vllm",)))
    watch = watch_of(cluster, "a")
    watch.look({"a": application("STARTING")})
    why = "a: engine 'vllm' is installed on no node; installed: sglang; start a node from an image that has it."
    assert (cluster.state.phase, cluster.state.detail) == ("waiting for nodes", why)
    cluster.nodes = (cluster.nodes[0], NodeState("n2", "10.0.0.3", True, engines=("vllm",)))
    watch.look({"a": application("STARTING")})
    assert cluster.state.phase == "loading weights"


def test_a_model_that_was_ready_may_fail(cluster: Cluster) -> None:
    watch = watch_of(cluster, "a")
    cluster.answering = {"/"}
    watch.look({"a": application("RUNNING")})
    cluster.reports["a"] = StartReport(error="gone", error_type="EngineError")
    watch.look({"a": application("STARTING")})
    assert not cluster.state.ready


def test_waiting_for_nodes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def next_poll(seconds: float) -> None:
        seen.append(cluster.state.detail)
        cluster.nodes = (*cluster.nodes, NodeState(f"n{len(seen)}", "10.0.0.2", alive=len(seen) > 1))

    monkeypatch.setattr(controller.time, "sleep", next_poll)
    watch_of(cluster, "a", min_nodes=2).wait_for_nodes()
    assert seen == ["nodes joined 1/2", "nodes joined 1/2"]
    assert (cluster.state.phase, cluster.state.detail, cluster.state.alive) == ("waiting for nodes", "nodes joined 2/2", 2)


def test_a_lost_node_is_logged(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    watch = watch_of(cluster, "a")
    cluster.answering = {"/"}
    cluster.nodes = (*cluster.nodes, NodeState("n1", "10.0.0.2", True))
    watch.look({"a": application("RUNNING")})
    cluster.nodes = cluster.nodes[:1]
    watch.look({"a": application("RUNNING")})
    assert "nodes alive: 1, were 2" in caplog.text


def test_a_short_silence_of_ray_changes_nothing_and_a_long_one_ends_the_node(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    settings = controller.ServeSettings("10.0.0.5:6379", 1, 8001, 8265, file)
    engine = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={})
    given = config.parse({"models": [{"source": "demo"}]}, "my.yaml")
    watch = controller.Watch(given, [engine], settings)
    watch.say("ready", "every model answers", models=(ModelState("demo", "vllm", ready=True, state="ready"),), was_ready=True)
    watch.cannot_look(1, OSError("refused"))
    assert state.read(file).ready
    watch.cannot_look(controller.UNREADABLE_S + 1, OSError("refused"))
    seen = state.read(file)
    assert (seen.phase, seen.ready) == ("degraded", False)
    with pytest.raises(UnavailableError, match="Ray on this node does not answer"):
        watch.cannot_look(controller.LOST_S + 1, OSError("refused"))
