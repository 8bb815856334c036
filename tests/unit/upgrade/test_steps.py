"""The steps in their order, and the way back, with Docker played by a fake."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai import cli
from ray_serve_cai.errors import (
    ConfigError,
    EngineError,
    RayServeCaiError,
    ResourceError,
    UnavailableError,
    UsageError,
)
from ray_serve_cai.upgrade import steps
from ray_serve_cai.upgrade.steps import Options, Outcome
from tests.unit.upgrade.conftest import FakeDocker

pytestmark = pytest.mark.issue(6)
ENV = Path("compose/.env")
STOP = ["kill --signal SIGTERM head", "kill head worker0 worker1"]
UP = "compose up --detach --no-build --no-deps --scale worker=2 head worker [{}]"
HOLD, LOOSE = "update --restart=no head", "update --restart=unless-stopped head"


def upgrade(image: str = "cai:b", **options: Any) -> Outcome:
    return steps.run(Options(image, **{"timeout_s": 0.1} | options))


def test_to_another_image(fake: FakeDocker, capsys: pytest.CaptureFixture[str]) -> None:
    ENV.write_text("IMAGE=cai:a\nPORT=8000\n")
    outcome = upgrade()
    assert fake.acts() == [*STOP, UP.format("cai:b"), HOLD, LOOSE]
    assert {one["Config"]["Image"] for one in fake.containers.values()} == {"cai:b"}
    assert ENV.read_text() == "IMAGE=cai:b\nPORT=8000\n"
    assert outcome.done
    (line,) = outcome.lines()
    assert line.startswith("upgraded from cai:a to cai:b; no answer for ")
    said = capsys.readouterr().err
    assert "importing vllm once from cai:b" in said
    assert "ready: as told; 3 of 3 nodes" in said
    found = outcome.as_dict()
    assert (found["from"], found["to"], found["changes"], found["error"]) == ("cai:a", "cai:b", {"build_id": ["one", "two"]}, None)


def test_what_runs_ends_first(fake: FakeDocker) -> None:
    upgrade()
    first = fake.calls.index(STOP[0])
    assert fake.calls[first + 1 : first + 5] == ["top head -eo pid,args"] * 3 + [STOP[1]]


def test_a_door_that_does_not_close(fake: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LATE_S", -7)
    fake.on["top"] = lambda: setattr(fake, "draining", 3)
    assert upgrade().done


def test_a_door_that_cannot_be_watched(fake: FakeDocker) -> None:
    fake.door = "haproxy -f /elsewhere"
    assert upgrade().done
    assert fake.acts()[:2] == ["compose stop head [cai:a]", STOP[1]]


def test_every_check_comes_before_the_stop(fake: FakeDocker) -> None:
    upgrade()
    stop = fake.calls.index(STOP[0])
    for call in (
        "compose run --rm --no-deps -T head ray-serve-cai plan --json [cai:b]",
        "compose run --rm --no-deps -T worker ray-serve-cai plan --json [cai:b]",
        "run --rm --network none --cpu-shares 256 --entrypoint python3 cai:b -c import ray.serve, vllm",
        "exec head df -P -B1 /",
    ):
        assert call in fake.calls[:stop]


def test_a_dry_run_touches_nothing(fake: FakeDocker) -> None:
    outcome = upgrade(dry_run=True)
    assert fake.acts() == []
    assert outcome.lines()[:2] == ["from cai:a to cai:b", "changes build_id: one -> two"]
    assert not ENV.exists()


def test_the_same_image(fake: FakeDocker) -> None:
    assert upgrade("cai:a").lines() == ["the cluster runs cai:a already; nothing to do"]
    assert fake.acts() == []


def test_the_image_is_pulled(fake: FakeDocker) -> None:
    fake.registry["far/cai:c"] = "sha256:b"
    assert upgrade("far/cai:c", dry_run=True).planned[0] == "from cai:a to far/cai:c"


@pytest.mark.parametrize(
    ("change", "image", "error", "message"),
    [
        ({}, "far/cai:d", UnavailableError, r"far/cai:d is not here and cannot be pulled \(.*: pull access denied\); build it"),
        ({"free": 1000}, "far/cai:d", ResourceError, "Docker's disk has 0.0 GiB left"),
        ({"free": 1000}, "cai:b", ResourceError, "Docker's disk has 0.0 GiB left"),
        ({"behaviour": {"sha256:a": "serves", "sha256:b": "is refused"}}, "cai:b", ConfigError, "cai:b refuses .* of 'head': the engine"),
        ({"behaviour": {"sha256:a": "serves", "sha256:b": "has no plan"}}, "cai:b", RayServeCaiError, "'head': exec: ray-serve-cai: not f"),
        ({"behaviour": {"sha256:a": "serves", "sha256:b": "does not import"}}, "cai:b", EngineError, "vllm: ImportError: no libnuma; noth"),
        ({"behaviour": {"sha256:a": "hangs", "sha256:b": "serves"}}, "cai:b", UnavailableError, "is not ready: loading weights: as told"),
        ({"images": {"cai:a": "sha256:a", "cai:b": "sha256:x"}}, "cai:b", ConfigError, "cai:b has no manifest of ray-serve-cai"),
        ({"manifests": {"sha256:a": {"ray": "1"}}}, "cai:a", ConfigError, "cai:a has no manifest of ray-serve-cai"),
        ({"model": "other"}, "cai:b", ConfigError, r"more than the image: head in RSCAI_MODEL; .* started with old\.yaml"),
        ({"containers": {}}, "cai:b", UnavailableError, "no head of the project 'shop' runs here"),
        ({}, "a b", ConfigError, "not valid with IMAGE=a b: .*invalid reference format"),
        ({"port": 1}, "cai:b", UnavailableError, "is not ready: unreachable: nothing answers on 127.0.0.1:1 yet"),
        ({"broken": "Cannot connect to the Docker daemon at unix:///x."}, "cai:b", UnavailableError, "no Docker daemon answers this user"),
        ({"broken": "docker: 'compose' is not a docker command."}, "cai:b", UnavailableError, "there is no `docker compose` here"),
    ],
)
def test_nothing_is_touched(fake: FakeDocker, change: dict[str, Any], image: str, error: type[RayServeCaiError], message: str) -> None:
    for name, value in change.items():
        setattr(fake, name, value)
    if "port" in change:
        fake.start("cai:a")
    with pytest.raises(error, match=message):
        upgrade(image)
    assert fake.acts() == []
    assert not ENV.exists()


def test_other_settings_where_they_are_allowed(fake: FakeDocker) -> None:
    fake.model = "other"
    assert upgrade(allow_changes=True).done


def test_settings_that_are_no_variables(fake: FakeDocker) -> None:
    for one in fake.containers.values():
        one["Config"]["Labels"]["com.docker.compose.config-hash"] = "with other ports"
    with pytest.raises(
        ConfigError, match="more than the image: head in settings other than its variables, such as ports and volumes; worker"
    ):
        upgrade()


def test_no_compose_file(fake: FakeDocker) -> None:
    with pytest.raises(UsageError, match="there is no compose file 'nowhere.yaml' here"):
        upgrade(files=("nowhere.yaml",))


def test_no_docker(monkeypatch: pytest.MonkeyPatch, fake: FakeDocker) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="no `docker` command here"):
        upgrade(files=(__file__,))


@pytest.mark.parametrize(
    ("does", "error", "reason"),
    [
        ("dies", ResourceError, "port 8000 is in use; take another one; "),
        ("hangs", UnavailableError, "not ready after 0 s; last seen: loading weights: as told; "),
        ("degraded", UnavailableError, "not ready after 0 s; last seen: degraded: as told; "),
        ("serves alone", UnavailableError, "not ready after 0 s; last seen: ready: as told; 1 of 3 nodes; "),
        ("is not started", RayServeCaiError, "failed: failed to create task: exec tini: not found; "),
    ],
)
@pytest.mark.parametrize("before", ["IMAGE=cai:a\nPORT=8000\n", None])
def test_back(fake: FakeDocker, does: str, error: type[RayServeCaiError], reason: str, before: str | None) -> None:
    if before:
        ENV.write_text(before)
    fake.behaviour["sha256:b"] = does
    outcome = upgrade()
    assert isinstance(outcome.error, error)
    assert str(outcome.error).startswith("cai:b does not serve here: ")
    assert reason in str(outcome.error)
    assert "; cai:a is back; no answer for " in str(outcome.error)
    assert (outcome.done, outcome.lines()) == (False, [])
    assert fake.acts()[-1] == UP.format("cai:a")
    assert {one["Config"]["Image"] for one in fake.containers.values()} == {"cai:a"}
    assert (ENV.read_text() if ENV.exists() else None) == before


def test_no_way_back_when_that_is_asked_for(fake: FakeDocker) -> None:
    fake.behaviour["sha256:b"] = "dies"
    outcome = upgrade(rollback=False)
    assert "; it was left as it is (--no-rollback); " in str(outcome.error)
    assert fake.acts() == [*STOP, UP.format("cai:b"), HOLD]
    assert ENV.read_text() == "IMAGE=cai:b\n"


def test_the_old_image_does_not_come_back_either(fake: FakeDocker) -> None:
    fake.behaviour["sha256:b"] = "dies"
    fake.on["compose up"] = lambda: fake.behaviour.update({"sha256:a": "hangs"})
    outcome = upgrade()
    assert isinstance(outcome.error, ResourceError)
    assert "; and cai:a does not come back: not ready after 0 s; last seen: loading weights: as told; " in str(outcome.error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_interruption_brings_the_old_image_back(fake: FakeDocker, number: signal.Signals) -> None:
    def interrupt() -> None:
        del fake.on["compose up"]
        os.kill(os.getpid(), number)

    fake.on["compose up"] = interrupt
    outcome = upgrade()
    assert "cai:b does not serve here: interrupted; cai:a is back" in str(outcome.error)
    assert fake.acts()[-1] == UP.format("cai:a")


def test_a_degraded_cluster_where_that_is_allowed(fake: FakeDocker) -> None:
    fake.behaviour["sha256:a"] = "degraded"
    assert upgrade(allow_degraded=True).done
    fake.start("cai:a")
    fake.behaviour["sha256:b"] = "dies"
    assert "; cai:a is back; " in str(upgrade(allow_degraded=True).error)


def test_an_image_that_has_moved_is_kept_under_another_name(fake: FakeDocker) -> None:
    fake.images["cai:a"] = "sha256:b"
    fake.behaviour["sha256:b"] = "hangs"
    outcome = upgrade("cai:a")
    assert fake.images[steps.KEPT] == "sha256:a"
    assert f"; {steps.KEPT} is back; " in str(outcome.error)
    assert ENV.read_text() == f"IMAGE={steps.KEPT}\n"


def test_another_upgrade_goes_on(fake: FakeDocker) -> None:
    def second() -> None:
        fake.on.clear()
        with pytest.raises(ResourceError, match="another upgrade with the files in compose goes on"):
            upgrade()

    fake.on["kill"] = second
    assert upgrade().done


def test_an_image_in_the_shell_is_warned_of(fake: FakeDocker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("IMAGE", "cai:a")
    monkeypatch.setenv("COMPOSE_FILE", "compose/cpu.yaml:compose/more.yaml")
    assert upgrade().done
    assert "IMAGE is cai:a in this shell and precedes compose/.env" in capsys.readouterr().err
    assert ENV.read_text() == "IMAGE=cai:b\n"


def test_the_command(fake: FakeDocker, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["upgrade", "cai:b", "-f", "compose/cpu.yaml", "-p", "shop", "--json"]) == 0
    assert '"done": true' in capsys.readouterr().out
    assert cli.main(["upgrade", "cai:b"]) == 0
    assert capsys.readouterr().out == "the cluster runs cai:b already; nothing to do\n"
    fake.behaviour["sha256:a"] = "dies"
    assert cli.main(["upgrade", "cai:a", "--timeout", "0.1"]) == 71
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(
        "ray-serve-cai: error: cai:a does not serve here: port 8000 is in use; take another one; cai:b is"
    )
