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
from ray_serve_cai.serving.updates import Desired
from ray_serve_cai.state import ModelState, NodeState

ENGINE = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={})


def application(*states: str, status: str = "DEPLOYING", message: str = "") -> dict[str, Any]:
    replicas = [{"state": one, "node_id": f"n{number}"} for number, one in enumerate(states)]
    return {"status": status, "message": message, "deployments": {"engine": {"replicas": replicas}}}


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


def node(name: str, cpus: float = 4, gpus: float = 0, *, alive: bool = True, engines: tuple[str, ...] = ("vllm",)) -> NodeState:
    return NodeState(name, "10.0.0.1", alive, engines=engines, cpus=cpus, gpus=gpus)


class Cluster:
    """What Ray, Serve and the replicas would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        self.answering: set[str] = set()
        self.nodes: tuple[NodeState, ...] = (node("n0"),)
        self.reports: dict[str, StartReport] = {}
        self.last_error = ""
        self.file = file
        monkeypatch.setattr(controller, "answers", lambda port, prefix: prefix in self.answering)
        monkeypatch.setattr(controller.ray_nodes, "nodes", lambda replicas, groups: self.nodes)
        monkeypatch.setattr(controller.ray_nodes, "replicas", lambda models: ())
        monkeypatch.setattr(controller.report, "read", lambda name: self.reports.get(name, StartReport()))
        monkeypatch.setattr(controller.report, "write", self.reports.__setitem__)
        monkeypatch.setattr(controller.replica_logs, "last_error", lambda name: self.last_error)

    @property
    def state(self) -> state.ClusterState:
        return state.read(self.file)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    return Cluster(monkeypatch, tmp_path / "state.json")


def watch_of(cluster: Cluster, *names: str, min_nodes: int = 1, alone: bool = False, min_gpus: int = 0) -> Watch:
    given = config.parse({"models": [{"source": name} for name in names]}, "my.yaml")
    engines = [ENGINE.model_copy(update={"name": name}) for name in names]
    kept = cluster.file.with_name("deployed.json")
    settings = ServeSettings("10.0.0.1:6379", min_nodes, 8001, 8265, cluster.file, kept, alone=alone, min_gpus=min_gpus)
    return Watch(Desired(given, engines), settings)


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


BUILDING = {"status": "DEPLOYING", "deployments": {}}


def test_a_model_stays_ready_while_serve_builds_its_application_anew(cluster: Cluster) -> None:
    watch = watch_of(cluster, "a")
    cluster.answering = {"/"}
    watch.look({"a": application("RUNNING", "RUNNING")})
    before = cluster.state
    cluster.answering = set()
    watch.look({"a": BUILDING})
    assert (cluster.state, cluster.state.ready, cluster.state.models[0].replicas) == (before, True, 2)
    watch.look({"a": application("RUNNING", "STARTING")})
    assert (cluster.state.ready, cluster.state.models[0].replicas) == (True, 1)
    watch.look({"a": application("STARTING")})
    assert not cluster.state.ready


def test_a_model_that_never_answered_is_not_ready_while_serve_builds_its_application(cluster: Cluster) -> None:
    watch = watch_of(cluster, "a")
    cluster.answering = {"/"}
    watch.look({"a": BUILDING})
    assert (cluster.state.phase, cluster.state.ready) == ("loading weights", False)
    watch.look({"a": application("RUNNING")})
    assert cluster.state.ready


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


def test_the_logs_tell_what_a_replica_did_not(cluster: Cluster) -> None:
    cluster.last_error = "OSError: no such weights"
    with pytest.raises(EngineError, match="model 'a' did not start: OSError: no such weights"):
        watch_of(cluster, "a").look({"a": application(status="DEPLOY_FAILED", message="x\nBoom")})
    assert cluster.reports["a"].error_type == "EngineError"


def test_one_model_of_two_may_fail(cluster: Cluster) -> None:
    cluster.reports["a"] = StartReport(error="no memory", error_type="ResourceError")
    cluster.answering = {"/models/b"}
    watch_of(cluster, "a", "b").look({"b": application("RUNNING")})
    assert (cluster.state.phase, cluster.state.detail) == ("degraded", "a: no memory")


def test_a_model_whose_engine_no_node_has_waits_and_says_so(cluster: Cluster) -> None:
    cluster.nodes = (node("n0", engines=("sglang",)), node("n1", alive=False))
    watch = watch_of(cluster, "a")
    watch.look({"a": application("STARTING")})
    why = "a: engine 'vllm' is installed on no node; installed: sglang; start a node from an image that has it."
    assert (cluster.state.phase, cluster.state.detail) == ("waiting for nodes", why)
    cluster.nodes = (cluster.nodes[0], node("n2"))
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
        cluster.nodes = (*cluster.nodes, node(f"n{len(seen)}", alive=len(seen) > 1))

    monkeypatch.setattr(controller.time, "sleep", next_poll)
    watch_of(cluster, "a", min_nodes=2).wait_for_nodes()
    assert seen == ["nodes joined 1/2", "nodes joined 1/2"]
    assert (cluster.state.phase, cluster.state.detail, cluster.state.alive) == ("waiting for nodes", "nodes joined 2/2", 2)


def test_waiting_for_gpus(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def next_poll(seconds: float) -> None:
        seen.append(cluster.state.detail)
        cluster.nodes = (*cluster.nodes, node(f"n{len(seen)}", gpus=4))

    monkeypatch.setattr(controller.time, "sleep", next_poll)
    watch_of(cluster, "a", min_gpus=8).wait_for_nodes()
    assert seen == ["nodes joined 1/1, GPUs 0/8", "nodes joined 2/1, GPUs 4/8"]
    assert cluster.state.detail == "nodes joined 3/1, GPUs 8/8"


@pytest.mark.parametrize(("alone", "nodes"), [(True, (node("n0"),)), (False, (node("n0", cpus=0.5),))], ids=["room", "others may come"])
def test_where_all_is_well_nodes_are_waited_for_and_no_more(cluster: Cluster, alone: bool, nodes: tuple[NodeState, ...]) -> None:
    cluster.nodes = nodes
    watch_of(cluster, "a", alone=alone).wait_for_nodes()
    assert cluster.state.detail == "nodes joined 1/1"


def test_a_node_that_stays_alone_and_has_no_room_says_so_at_once(cluster: Cluster) -> None:
    cluster.nodes = (node("n0", cpus=1),)
    with pytest.raises(ResourceError, match="^model 'b': needs 1 node with 1 CPU; the cluster has 1 with 1"):
        watch_of(cluster, "a", "b", alone=True).wait_for_nodes()


def test_a_model_that_there_is_no_room_for_waits_and_says_so(cluster: Cluster) -> None:
    cluster.nodes = (node("n0", cpus=0.5),)
    watch_of(cluster, "a").look({"a": application("STARTING")})
    assert cluster.state.phase == "waiting for nodes"
    assert cluster.state.detail.startswith("a: needs 1 node with 1 CPU; the cluster has 1 with 0.5")


def test_what_is_desired_may_change(cluster: Cluster) -> None:
    watch = watch_of(cluster, "a")
    cluster.nodes, cluster.answering = (node("n0", cpus=1),), {"/"}
    watch.look({"a": application("RUNNING")})
    assert cluster.state.models[0].error == ""
    watch.desired = Desired(watch.desired.config, [ENGINE.model_copy(update={"name": "a", "replicas": 2})])
    watch.look({"a": application("RUNNING")})
    assert cluster.state.ready
    assert cluster.state.models[0].error.startswith("there is room for 1 of 2 replicas; ")


class Seen(Exception):
    """In place of the end of the process."""


def test_each_look_is_followed_by_a_look_at_updates(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[Any] = iter([{"applications": {}}, RuntimeError("busy"), {"applications": {"a": application("RUNNING")}}])
    seen: list[object] = []

    class Client:
        def get_serve_details(self) -> Any:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    class Updates:
        def look(self, applications: dict[str, Any]) -> None:
            seen.append((cluster.state.phase, list(applications)))
            if applications:
                raise Seen

    monkeypatch.setattr(controller.time, "sleep", lambda seconds: None)
    with pytest.raises(Seen):
        watch_of(cluster, "a").follow(Client(), Updates())  # type: ignore[arg-type]
    assert seen == [("loading weights", []), ("warming up", ["a"])]


def test_a_serve_that_does_not_say_where_replicas_are_ends_no_watch(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    there = state.ReplicaState("a", "r", "10.0.0.1", 30000)
    told: Iterator[Any] = iter([UnavailableError("its controller starts anew"), (there,)])

    def replicas(models: dict[str, str]) -> Any:
        assert models == {"a": "a"}
        answer = next(told)
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Client:
        def get_serve_details(self) -> Any:
            return {"applications": {"a": application("RUNNING")}}

    class Updates:
        def look(self, applications: dict[str, Any]) -> None:
            raise Seen

    monkeypatch.setattr(controller.ray_nodes, "replicas", replicas)
    monkeypatch.setattr(controller.time, "sleep", lambda seconds: None)
    with pytest.raises(Seen):
        watch_of(cluster, "a").follow(Client(), Updates())  # type: ignore[arg-type]
    assert cluster.state.replicas == (there,)


def test_rays_nodes_and_what_is_free_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed, so there is nothing to stand in for")
    ray_state = pytest.importorskip("ray._private.state")
    listed = [{"NodeID": name, "Alive": name != "gone", "Resources": {"CPU": 8.0, "GPU": 2.0}} for name in ("here", "full", "gone")]
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    monkeypatch.setattr(ray_state, "available_resources_per_node", lambda: {"here": {"CPU": 3.0, "GPU": 1.0}, "full": {"memory": 1.0}})
    monkeypatch.setattr(ray_state.state, "get_draining_nodes", lambda: {"full": 7})
    nodes, free = controller.ray_nodes.with_what_is_free()
    assert [one.id for one in nodes if one.draining] == ["full"]
    assert [(one.id, one.cpus, one.gpus) for one in nodes] == [("here", 8, 2), ("full", 8, 2), ("gone", 8, 2)]
    assert [(one.id, one.alive, one.cpus, one.gpus) for one in free] == [("here", True, 3, 1), ("full", True, 0, 0), ("gone", False, 0, 0)]


def test_a_lost_node_is_logged(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    watch = watch_of(cluster, "a")
    cluster.answering = {"/"}
    cluster.nodes = (*cluster.nodes, node("n1"))
    watch.look({"a": application("RUNNING")})
    cluster.nodes = cluster.nodes[:1]
    watch.look({"a": application("RUNNING")})
    assert "nodes alive: 1, were 2" in caplog.text


def test_a_short_silence_of_ray_changes_nothing_and_a_long_one_ends_the_node(cluster: Cluster) -> None:
    watch = watch_of(cluster, "demo")
    watch.say("ready", "every model answers", models=(ModelState("demo", "vllm", ready=True, state="ready"),), was_ready=True)
    watch.cannot_look(1, OSError("refused"))
    assert cluster.state.ready
    watch.cannot_look(controller.UNREADABLE_S + 1, OSError("refused"))
    assert (cluster.state.phase, cluster.state.ready) == ("degraded", False)
    with pytest.raises(UnavailableError, match="Ray on this node does not answer"):
        watch.cannot_look(controller.LOST_S + 1, OSError("refused"))
