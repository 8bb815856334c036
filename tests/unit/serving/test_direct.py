"""Where a replica may be placed, and what is asked of Serve; tests/python_api asks a real one."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.errors import ConfigError, EngineError, ResourceError, UnavailableError
from ray_serve_cai.serving import direct

serve = pytest.importorskip("ray.serve", reason="ray[serve] is not installed, so there is nothing to stand in for", exc_type=ImportError)

CONFIG = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={}, cpus=2.0)
LABEL = {"rscai/engine.vllm": "true"}


def node(cpus: float = 4, gpus: float = 0, **labels: str) -> dict[str, Any]:
    return {"Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {}), "Labels": labels}


@pytest.mark.parametrize(
    ("nodes", "engines"),
    [
        ([], None),
        ([node(), {"Resources": {}}], None),
        ([node(**{"rscai/role": "head"})], []),
        ([node(**{"rscai/engine.vllm": "true"}), node(**{"rscai/engine.echo": "true"} | LABEL)], ["echo", "vllm"]),
    ],
)
def test_engines_that_labels_name(nodes: list[dict[str, Any]], engines: list[str] | None) -> None:
    assert direct.engines_by_label(nodes) == engines


@pytest.mark.parametrize(("labels", "labelled"), [(LABEL, True), ({}, False)])
def test_labels_are_asked_for_where_nodes_have_them(labels: dict[str, str], labelled: bool) -> None:
    assert direct.placed(CONFIG, [node(**labels)]) == CONFIG.model_copy(update={"labelled": labelled})


def test_an_engine_that_no_node_has() -> None:
    config = CONFIG.model_copy(update={"info": replace(VLLM, name="echo", install="pip install echo")})
    with pytest.raises(ConfigError) as caught:
        direct.placed(config, [node(**LABEL)])
    assert str(caught.value) == "engine 'echo' is installed on no node; installed: vllm; use an image that has it, or: pip install echo."


@pytest.mark.parametrize(
    ("changes", "nodes", "part"),
    [
        pytest.param(
            {"cpus": 1.0, "replicas": 3}, [node(2)], "there is room for 2 of 3 replicas; each needs 1 node with 1 CPU; ", id="copies"
        ),
        pytest.param({}, [], "needs 1 node with 2 CPUs; the cluster has no node; num_replicas, ", id="no node"),
        pytest.param({}, [node(1)], "needs 1 node with 2 CPUs; the cluster has 1 with 1", id="CPUs"),
        pytest.param({"gpus": 2}, [node(), node(4, 1)], "needs 1 node with 2 GPUs; the cluster has 1 with 1 and 1 with none", id="GPUs"),
        pytest.param({"gpus": 1, "cpus": 8.0}, [node(8), node(4, 1)], "needs 1 node with 1 GPU and 8 CPUs; ", id="not on one node"),
    ],
)
def test_what_there_is_no_room_for(changes: dict[str, Any], nodes: list[dict[str, Any]], part: str) -> None:
    with pytest.raises(ResourceError) as caught:
        direct.placed(CONFIG.model_copy(update=changes), nodes)
    assert str(caught.value).startswith(f"model 'demo': {part}")
    assert str(caught.value).endswith("; num_replicas, tensor_parallel_size and use_cpu: true change what it takes.")


def test_a_replica_that_fits_on_one_node_of_several() -> None:
    direct.placed(CONFIG.model_copy(update={"gpus": 2}), [node(1), node(4, 2)])


class Serve:
    """Serve's functions as `direct` calls them, and the reports of a replica; ``steps`` are (report, status, message)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: tuple[StartReport, str, str]) -> None:
        self.steps = list(steps)
        self.done: list[Any] = []
        monkeypatch.setattr(direct, "POLL_S", 0)
        monkeypatch.setattr(direct.report, "write", lambda model, said: self.done.append(("report", said)))
        monkeypatch.setattr(direct.report, "read", lambda model: self.steps[0][0])
        monkeypatch.setattr(serve, "run_many", lambda targets, **options: self.done.append(("run", targets[0].name, options)))
        monkeypatch.setattr(serve, "status", self.status)
        monkeypatch.setattr(serve, "delete", lambda name: self.done.append(("delete", name)))
        monkeypatch.setattr(serve, "shutdown", lambda: self.done.append(("shutdown",)))
        monkeypatch.setattr(serve, "start", lambda **options: self.done.append(("start", options)))

    def status(self) -> SimpleNamespace:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if not step[1]:
            return SimpleNamespace(applications={})
        deployment = SimpleNamespace(status=SimpleNamespace(value="UPDATING"), message="m")
        application = SimpleNamespace(status=SimpleNamespace(value=step[1]), message=step[2], deployments={"engine": deployment})
        return SimpleNamespace(applications={"app": application})


LOADING, WARMING = StartReport(phase="loading weights"), StartReport(phase="warming up")


def test_deploying_shows_each_phase_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Serve(monkeypatch, (StartReport(), "", ""), (LOADING, "DEPLOYING", ""), (LOADING, "DEPLOYING", ""), (WARMING, "RUNNING", ""))
    phases: list[str] = []
    direct.deploy("app", CONFIG, phases.append)
    assert phases == ["loading weights", "warming up"]
    assert made.done[0] == ("report", StartReport())
    assert made.done[1] == ("run", "app", {"wait_for_applications_running": False})
    assert ("delete", "app") not in made.done


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        ((StartReport(error="no memory", error_type="ResourceError"), "DEPLOYING", ""), ResourceError, "no memory"),
        ((LOADING, "DEPLOY_FAILED", "Traceback\n  x\nBoom: why\n"), EngineError, "model 'demo' did not start: Boom: why"),
        ((LOADING, "DEPLOY_FAILED", ""), EngineError, "model 'demo' did not start: it did not say why"),
    ],
    ids=["the replica's", "Serve's", "nobody's"],
)
def test_a_deployment_that_fails_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, step: tuple[StartReport, str, str], kind: type[Exception], message: str
) -> None:
    made = Serve(monkeypatch, (StartReport(), "DEPLOYING", ""), step)
    with pytest.raises(kind) as caught:
        direct.deploy("app", CONFIG, lambda phase: None)
    assert str(caught.value) == message
    assert made.done[-1] == ("delete", "app")


def test_where_an_application_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    Serve(monkeypatch, (StartReport(), "UNHEALTHY", "why"))
    deployments = (direct.DeploymentStatus("engine", "UPDATING", "m"),)
    assert direct.status("app") == direct.ApplicationStatus("UNHEALTHY", "why", deployments)
    assert direct.status("other") is None


@pytest.mark.parametrize(("status", "stopped"), [("", True), ("RUNNING", False)])
def test_serve_is_stopped_where_nothing_else_runs_on_it(monkeypatch: pytest.MonkeyPatch, status: str, stopped: bool) -> None:
    made = Serve(monkeypatch, (StartReport(), status, ""))
    assert direct.stop_serve() is stopped
    assert (("shutdown",) in made.done) is stopped


def test_serve_starts_where_the_port_is_free(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    made = Serve(monkeypatch, (StartReport(), "", ""))
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda: None)
    direct.start_serve("127.0.0.1", free_port)
    assert made.done == [("start", {"proxy_location": "EveryNode", "http_options": {"host": "127.0.0.1", "port": free_port}})]


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    made = Serve(monkeypatch, (StartReport(), "", ""))
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda: None)
    with pytest.raises(ResourceError, match=rf"port {taken_port} on 127\.0\.0\.1 cannot be listened on \(.+\); use another port"):
        direct.start_serve("127.0.0.1", taken_port)
    assert made.done == []


def test_serve_that_runs_already_is_taken_at_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Serve(monkeypatch, (StartReport(), "", ""))
    client = SimpleNamespace(http_config=SimpleNamespace(port=8000))
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda: client)
    direct.start_serve("127.0.0.1", 8000)
    assert made.done == []
    with pytest.raises(ResourceError, match="port is 8001, and Serve of this cluster listens at 8000; use port: 8000"):
        direct.start_serve("127.0.0.1", 8001)


def test_rays_nodes_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True} | node(4), {"Alive": False} | node(4, 1)])
    assert len(direct.nodes()) == 1
    assert not direct.has_gpus(direct.nodes())


def test_an_error_of_serve_is_one_typed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("two\n lines")

    monkeypatch.setattr(serve, "delete", fail)
    with pytest.raises(UnavailableError) as caught:
        direct.delete("app")
    assert str(caught.value) == "Ray Serve: RuntimeError: two lines"
