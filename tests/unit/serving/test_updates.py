"""The serving process's side of an update, against a Serve that a test moves by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai import config
from ray_serve_cai.config import Config
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.report import StartReport
from ray_serve_cai.errors import ModelNotFoundError
from ray_serve_cai.serving import mailbox, updates
from ray_serve_cai.serving.mailbox import Answer, Mailbox, Request
from ray_serve_cai.serving.updates import Desired, Updates
from ray_serve_cai.state import NodeState

SURGE_SAID = "all new replicas start before old ones end"


def models(*changes: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {"models": [{"source": "org/demo", "name": "demo", **changes[0]}, *changes[1:]], **sections}


BEFORE = models({})
HEAVY = models({"engine_args": {"max_model_len": 512}})


def application(*replicas: str, status: str = "RUNNING", message: str = "") -> dict[str, Any]:
    """``new:STARTING`` is a replica and its state; without a state it runs."""
    parts = [replica.partition(":") for replica in replicas]
    listed = [{"replica_id": name, "state": state or "RUNNING"} for name, _, state in parts]
    return {"status": status, "message": message, "deployments": {"engine": {"replicas": listed}}}


class Cluster:
    """What an update asks of Serve and Ray, and what they answer."""

    def __init__(self, directory: Path, given: dict[str, Any]) -> None:
        self.box = Mailbox(directory)
        self.applied: list[list[EngineConfig]] = []
        self.kept: list[Config] = []
        self.reports: dict[str, StartReport] = {"demo": StartReport(phase="ready")}
        self.refusals: list[Exception] = []
        self.gpus = 4
        self.names = ["n"]
        self.groups: dict[str, Any] = {}
        self.draining: set[str] = set()
        self.silent: set[str] = set()
        self.seen: dict[str, Any] = {"demo": application("old")}
        parsed = config.parse(given, "before")
        self.before = Desired(parsed, self.build(parsed))
        self.updates = Updates(
            self.before,
            self.box,
            build=self.build,
            apply=self.apply,
            keep=self.kept.append,
            answers=lambda name: name not in self.silent,
            nodes=self.nodes,
            groups=lambda: self.groups,
        )

    def build(self, wanted: Config) -> list[EngineConfig]:
        if any(model.source == "gone" for model in wanted.models):
            raise ModelNotFoundError("model 'gone' does not exist.")
        return [
            EngineConfig(
                info=VLLM,
                name=model.name,
                model=model.source,
                arguments=dict(model.engine_args),
                gpus=1,
                replicas=model.replicas,
                labelled=False,
            )
            for model in wanted.models
        ]

    def apply(self, wanted: Desired) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.applied.append(wanted.engines)

    def nodes(self) -> tuple[list[NodeState], list[NodeState]]:
        offered = [NodeState(name, name, True, cpus=64, gpus=8, draining=name in self.draining) for name in self.names]
        return offered, [replace(node, gpus=self.gpus) for node in offered]

    def send(self, wanted: dict[str, Any], **options: Any) -> Request:
        request = Request(wanted, **options)
        self.box.send(request)
        return request

    def look(self, **applications: dict[str, Any]) -> None:
        self.seen |= applications
        self.updates.look(self.seen)

    def answer(self, request: Request) -> Answer:
        answer = self.box.answer_to(request)
        assert answer is not None
        return answer


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A cluster that serves a configuration."""

    def made(given: dict[str, Any] = BEFORE) -> Cluster:
        cluster = Cluster(tmp_path, given)
        monkeypatch.setattr(updates.report, "read", lambda name: cluster.reports.get(name, StartReport()))
        monkeypatch.setattr(updates.report, "write", cluster.reports.__setitem__)
        return cluster

    return made


@pytest.fixture
def cluster(make: Any) -> Cluster:
    made: Cluster = make()
    return made


def test_nothing_is_done_where_nothing_is_asked_for(cluster: Cluster) -> None:
    cluster.look()
    assert (cluster.applied, cluster.updates.desired) == ([], cluster.before)


def test_an_update_from_its_plan_to_its_end(cluster: Cluster) -> None:
    request = cluster.send(HEAVY)
    cluster.look()
    plan = {"demo": SURGE_SAID}
    assert cluster.answer(request) == Answer(request.id, mailbox.UNDER_WAY, plan)
    assert [(one.surge, one.arguments) for one in cluster.applied[0]] == [(100, {"max_model_len": 512})]
    assert cluster.updates.desired.config == config.parse(HEAVY, "")
    assert cluster.reports["demo"] == StartReport()  # what a former replica said counts no more
    cluster.look(demo=application("old", "new:STARTING", status="DEPLOYING"))
    assert cluster.answer(request) == Answer(request.id, mailbox.UNDER_WAY, plan, "demo: 0 of 1 new replicas run")
    cluster.look(demo=application("old", "new", status="DEPLOYING"))
    assert cluster.answer(request).detail == "demo: 1 of 1 new replicas run"
    assert cluster.kept == []
    cluster.look(demo=application("old:STOPPING", "new"))
    assert cluster.answer(request) == Answer(request.id, mailbox.DONE, plan)
    assert cluster.kept == [config.parse(HEAVY, "")]
    cluster.look()
    assert len(cluster.applied) == len(cluster.kept) == 1


def test_an_answer_is_not_written_again_and_again(cluster: Cluster, tmp_path: Path) -> None:
    answer = tmp_path / f"update-answer.{cluster.send(HEAVY).id}.json"
    cluster.look()
    cluster.look()
    written = answer.stat().st_ino
    cluster.look()
    assert answer.stat().st_ino == written


def test_what_is_desired_already_is_done_at_the_next_look(cluster: Cluster) -> None:
    request = cluster.send(BEFORE)
    cluster.look()
    cluster.look()
    assert cluster.answer(request) == Answer(request.id, mailbox.DONE, {"demo": "unchanged"})
    assert cluster.applied in ([], [cluster.before.engines])


def test_more_copies(cluster: Cluster) -> None:
    cluster.reports["demo"] = StartReport(error="of long ago")
    request = cluster.send(models({"replicas": 2}))
    cluster.look()
    cluster.look(demo=application("old", "new:STARTING"))
    assert cluster.answer(request).detail == "demo: 1 of 2 replicas run"
    assert cluster.reports["demo"] == StartReport()
    cluster.look(demo=application("old", "new"))
    assert cluster.answer(request).state == mailbox.DONE


def test_a_plan_alone_changes_nothing(cluster: Cluster) -> None:
    request = cluster.send(HEAVY, dry_run=True)
    cluster.look()
    assert cluster.answer(request) == Answer(request.id, mailbox.PLANNED, {"demo": SURGE_SAID})
    cluster.look()
    assert (cluster.applied, cluster.kept, cluster.updates.desired) == ([], [], cluster.before)
    assert cluster.reports["demo"].phase == "ready"


@pytest.mark.parametrize(
    ("wanted", "gpus", "kind", "part"),
    [
        (
            {"models": [{"source": "x", "replica": 2}]},
            4,
            "ConfigError",
            "the new configuration: models[0].replica: unknown key; did you mean",
        ),
        ({}, 4, "ConfigError", "the new configuration: models: missing"),
        (models({"source": "gone"}), 4, "ModelNotFoundError", "model 'gone' does not exist."),
        (models({}, {"source": "org/other"}), 4, "ConfigError", "the cluster serves demo, and the new configuration has demo, org/other"),
        (models({}, server={"max_body_mb": 8}), 4, "ConfigError", "server: its settings are the front door's"),
        (HEAVY, 0, "ResourceError", "model 'demo' has no room for a new replica while the old one runs: needs 1 node with 1 GPU"),
    ],
    ids=["unknown key", "empty", "no model", "another model", "front door", "no room"],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_cannot_be_is_refused_and_changes_nothing(
    cluster: Cluster, wanted: dict[str, Any], gpus: int, kind: str, part: str, dry_run: bool
) -> None:
    cluster.gpus = gpus
    request = cluster.send(wanted, dry_run=dry_run)
    cluster.look()
    answer = cluster.answer(request)
    assert (answer.state, answer.error_type, answer.plan) == (mailbox.FAILED, kind, {})
    assert answer.error.startswith(part)
    assert (cluster.applied, cluster.updates.desired, cluster.reports["demo"].phase) == ([], cluster.before, "ready")
    again = cluster.send(BEFORE)  # the next one is looked at all the same
    cluster.look()
    assert cluster.answer(again).state != mailbox.FAILED


def test_a_pause_that_is_accepted(cluster: Cluster) -> None:
    cluster.gpus = 0
    request = cluster.send(HEAVY, allow_downtime=True)
    cluster.look()
    assert cluster.answer(request).state == mailbox.UNDER_WAY
    assert [one.surge for one in cluster.applied[0]] == [0]


FAILURES = [
    pytest.param(StartReport(error="no memory.", error_type="ResourceError"), application("old", "new:STARTING"), "ResourceError", "no memory", id="the replica's"),
    pytest.param(StartReport(), application("old", status="DEPLOY_FAILED", message="Traceback\n  x\nBoom: why"), "EngineError", "Boom: why", id="Serve's"),
    pytest.param(StartReport(), application("old", status="DEPLOY_FAILED"), "EngineError", "it did not say why", id="nobody's"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "seen", "kind", "why"), FAILURES)
def test_an_update_that_fails_is_undone(cluster: Cluster, said: StartReport, seen: dict[str, Any], kind: str, why: str) -> None:
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.reports["demo"] = said
    cluster.look(demo=seen)
    answer = cluster.answer(request)
    assert (answer.state, answer.error_type, answer.plan) == (mailbox.FAILED, kind, {"demo": SURGE_SAID})
    assert answer.error.endswith(f"{why}; the former configuration stays.")
    assert cluster.applied[1:] == [cluster.before.engines]
    assert (cluster.kept, cluster.updates.desired) == ([], cluster.before)
    cluster.look()
    assert len(cluster.applied) == 2


@pytest.mark.parametrize("error", [RuntimeError("503\n busy"), ConnectionError("refused")])
def test_where_serve_does_not_take_it_nothing_has_changed(cluster: Cluster, error: Exception) -> None:
    cluster.refusals = [error]
    request = cluster.send(HEAVY)
    cluster.look()
    answer = cluster.answer(request)
    assert (answer.state, answer.error_type) == (mailbox.FAILED, "UnavailableError")
    assert answer.error == f"Ray Serve did not take the configuration: {' '.join(str(error).split())}."
    assert (cluster.applied, cluster.kept, cluster.updates.desired) == ([], [], cluster.before)
    again = cluster.send(HEAVY)
    cluster.look()
    cluster.look(demo=application("new"))
    assert cluster.answer(again).state == mailbox.DONE


def test_an_update_that_fails_and_cannot_be_undone_says_so(cluster: Cluster) -> None:
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.refusals = [ConnectionError("refused")]
    cluster.reports["demo"] = StartReport(error="no memory.", error_type="ResourceError")
    cluster.look()
    answer = cluster.answer(request)
    assert (answer.state, answer.error_type) == (mailbox.FAILED, "ResourceError")
    assert answer.error == (
        "no memory; going back to the former configuration failed, too: Ray Serve did not take the configuration: refused."
    )


def test_a_full_disk_ends_no_update(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(_: Config) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(cluster.updates, "_keep", full)
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.look(demo=application("new"))
    assert cluster.answer(request).state == mailbox.DONE
    assert "will not be after a restart, since it cannot be written down: no space left" in caplog.text


def test_a_failure_names_its_model(make: Any) -> None:
    other = {"source": "org/other", "name": "other"}
    cluster = make(models({}, other))
    cluster.seen["other"] = application("x")
    request = cluster.send(models({"engine_args": {"x": 1}}, other | {"engine_args": {"x": 1}}))
    cluster.look()
    cluster.look(other=application("x", status="DEPLOY_FAILED", message="Boom"))
    assert cluster.answer(request).error == "model 'other' did not start: Boom; the former configuration stays."


def test_a_report_of_long_ago_undoes_nothing(cluster: Cluster) -> None:
    cluster.reports["demo"] = StartReport(error="no memory.", error_type="ResourceError")
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.look(demo=application("old", "new:STARTING", status="DEPLOYING"))
    assert cluster.answer(request).state == mailbox.UNDER_WAY


def test_after_a_failure_another_update_may_come(cluster: Cluster) -> None:
    cluster.send(HEAVY)
    cluster.look()
    cluster.reports["demo"] = StartReport(error="no memory.")
    cluster.look()
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.look(demo=application("newer"))
    assert cluster.answer(request).state == mailbox.DONE


def test_one_at_a_time(cluster: Cluster) -> None:
    first = cluster.send(HEAVY)
    cluster.look()
    planned = cluster.send(BEFORE, dry_run=True)
    cluster.look()
    assert cluster.answer(planned).state == mailbox.PLANNED
    second = cluster.send(HEAVY)
    cluster.look()
    assert cluster.answer(second).state == mailbox.FAILED
    assert cluster.answer(second).error.startswith("another update is under way (it has begun); wait for it, or end it with: ray-serve-cai")
    assert cluster.answer(first).state == mailbox.UNDER_WAY
    cluster.look(demo=application("new"))
    assert cluster.answer(first).state == mailbox.DONE


def test_an_update_that_is_cancelled_is_undone(cluster: Cluster) -> None:
    first = cluster.send(HEAVY)
    cluster.look()
    cancel = cluster.send({}, cancel=True)
    cluster.look()
    assert (cluster.answer(first).state, cluster.answer(first).error) == (
        mailbox.FAILED,
        "the update was cancelled; the former configuration stays.",
    )
    assert cluster.answer(cancel).state == mailbox.DONE
    assert cluster.updates.desired == cluster.before
    assert cluster.kept == []
    again = cluster.send({}, cancel=True)
    cluster.look()
    assert cluster.answer(again).error == "no update is under way, so there is nothing to cancel."


def test_whatever_a_plugin_raises_ends_the_update_and_nothing_else(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(wanted: Config) -> list[EngineConfig]:
        raise KeyError("x")

    monkeypatch.setattr(cluster.updates, "_build", build)
    request = cluster.send(HEAVY)
    cluster.look()
    assert (cluster.answer(request).state, cluster.answer(request).error) == (mailbox.FAILED, "KeyError: 'x'")


def test_an_update_is_not_done_before_the_model_answers(cluster: Cluster) -> None:
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.silent.add("demo")
    cluster.look(demo=application("new"))
    assert (cluster.answer(request).state, cluster.answer(request).detail) == (mailbox.UNDER_WAY, "demo: does not answer yet")
    cluster.silent.clear()
    cluster.look()
    assert cluster.answer(request).state == mailbox.DONE


def test_nothing_is_begun_while_serve_builds(cluster: Cluster) -> None:
    request = cluster.send(HEAVY)
    cluster.look(demo={"status": "DEPLOYING", "deployments": {}})
    assert cluster.box.answer_to(request) is None
    cluster.look(demo=application("old"))
    assert cluster.answer(request).state == mailbox.UNDER_WAY


def test_the_same_update_again_changes_nothing(cluster: Cluster) -> None:
    cluster.send(HEAVY)
    cluster.look()
    cluster.look(demo=application("new"))
    request = cluster.send(HEAVY)
    cluster.look()
    cluster.look()
    assert cluster.answer(request) == Answer(request.id, mailbox.DONE, {"demo": "unchanged"})
    assert cluster.updates.desired.engines[0].arguments == {"max_model_len": 512}


def test_two_models_are_done_when_both_are(make: Any) -> None:
    other = {"source": "org/other", "name": "a/b"}
    cluster = make(models({}, other))
    cluster.seen["a--b"] = application("other")
    request = cluster.send(models({"replicas": 2}, other | {"engine_args": {"x": 1}}))
    cluster.look()
    assert cluster.answer(request).plan == {"demo": "2 replicas, changed in place", "a/b": SURGE_SAID}
    cluster.look()
    assert cluster.answer(request).detail == "demo: 1 of 2 replicas run; a/b: 0 of 1 new replicas run"
    cluster.look(demo=application("old", "new"))
    assert cluster.answer(request).detail == "a/b: 0 of 1 new replicas run"
    cluster.updates.look(cluster.seen | {"a--b": application("newer")})
    assert cluster.answer(request).state == mailbox.DONE


def test_a_model_that_stays_may_be_ill(make: Any) -> None:
    other = {"source": "org/other", "name": "other"}
    cluster = make(models({}, other))
    cluster.reports["other"] = StartReport(error="gone")
    request = cluster.send(models({"engine_args": {"x": 1}}, other))
    cluster.look(other=application(status="DEPLOY_FAILED", message="gone"))
    cluster.look(demo=application("new"))
    assert cluster.answer(request).state == mailbox.DONE
    assert cluster.reports["other"].error == "gone"


def test_applications_are_named_as_serve_names_them() -> None:
    parsed = config.parse(models({}, {"source": "x", "name": "org/a"}), "")
    engines = [EngineConfig(info=VLLM, name=model.name, model="x", arguments={}) for model in parsed.models]
    assert Desired(parsed, engines).applications() == {"demo": engines[0], "org--a": engines[1]}


def with_a_shard_on_a_node_that_leaves(cluster: Cluster) -> dict[str, Any]:
    cluster.names = ["n", "leaves", "other"]
    cluster.draining = {"leaves"}
    cluster.groups = {"g": {"name": "SERVE_REPLICA::demo#engine#old", "state": "CREATED", "bundles_to_node_id": {0: "n", 1: "leaves"}}}
    serving = application("old")
    serving["deployments"]["engine"]["replicas"][0] |= {"actor_name": "SERVE_REPLICA::demo#engine#old", "node_id": "n"}
    return serving


def test_a_replica_that_loses_ranks_with_a_node_gets_a_successor_first(cluster: Cluster) -> None:
    serving = with_a_shard_on_a_node_that_leaves(cluster)
    cluster.look(demo=serving)
    assert [(one.surge, one.generation) for one in cluster.applied[0]] == [(100, 1)]
    cluster.look(demo=serving)
    assert len(cluster.applied) == 1
    cluster.look(demo=application("new"))
    cluster.look(demo=serving)  # its end takes a while: it was told once
    assert len(cluster.applied) == 1
    assert cluster.kept == []
    request = cluster.send(HEAVY)
    cluster.look(demo=application("new"))
    assert cluster.answer(request).state == mailbox.UNDER_WAY
    assert [one.generation for one in cluster.applied[1]] == [1]


def test_where_there_is_no_room_the_streams_end_and_the_model_waits(cluster: Cluster) -> None:
    serving = with_a_shard_on_a_node_that_leaves(cluster)
    cluster.names = ["leaves"]
    cluster.look(demo=serving)
    assert [(one.surge, one.generation) for one in cluster.applied[0]] == [(0, 1)]
    cluster.silent = {"demo"}
    cluster.look(demo=application("new:STARTING"))
    request = cluster.send(HEAVY, dry_run=True)
    cluster.names = ["n"]
    cluster.look()
    assert cluster.answer(request).state == mailbox.PLANNED


def test_a_move_that_fails_is_not_tried_for_ever(cluster: Cluster) -> None:
    serving = with_a_shard_on_a_node_that_leaves(cluster)
    cluster.look(demo=serving)
    cluster.reports["demo"] = StartReport(error="no", error_type="EngineError")
    cluster.look(demo=serving)
    assert [one.generation for one in cluster.applied[1]] == [0]
    cluster.look(demo=serving)
    assert len(cluster.applied) == 2
