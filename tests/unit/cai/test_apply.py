"""Plans that are done on the emulated platform, and interrupted everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ray_serve_cai.cai.apply import HANGING_S, Apply
from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.cluster import there
from ray_serve_cai.cai.config import CaiFile
from ray_serve_cai.cai.plan import Plan, plan, teardown
from ray_serve_cai.cai.requests import TOKEN, Shared, configuration
from ray_serve_cai.errors import PlatformAccessError, PlatformDownError, PlatformRefusedError, UnavailableError
from tests.fakes.cai.platform import Nodes, Platform, Reply
from tests.unit.cai.conftest import IMAGE
from tests.unit.cai.test_plan import planned as planned_
from tests.unit.cai.test_plan import wanted as wanted_

pytestmark = pytest.mark.issue(9)


class Interrupted(BaseException):
    """As a signal would end the program."""


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Slow(Nodes):
    """Applications that start when they are told to."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}

    def start(self, application: dict[str, Any]) -> None:
        application["status"] = self.statuses.get(application["name"], "APPLICATION_STARTING")

    def refresh(self, application: dict[str, Any]) -> None:
        if application["name"] in self.statuses:
            application["status"] = self.statuses[application["name"]]


def wanted(**cai: Any) -> CaiFile:
    return wanted_(**({"runtime": IMAGE} | cai))


def planned(client: Client, what: CaiFile) -> Plan:
    return plan(what, there(client, what), Shared("n" * 48))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(client: Client, said: list[str], clock: Clock) -> Callable[[CaiFile], None]:
    def run(what: CaiFile) -> None:
        todo = planned(client, what)
        apply = Apply(client, said.append, clock, clock.sleep)
        apply.run(todo)
        apply.wait(todo, 3600)

    return run


def names(platform: Platform) -> list[str]:
    return sorted(one["name"] for one in platform.applications.values())


def test_up_scale_change_and_down(
    run: Callable[[CaiFile], None], client: Client, platform: Platform, said: list[str], clock: Clock
) -> None:
    run(wanted(shared_memory_gb=2))
    assert names(platform) == ["m-gpu-1", "m-gpu-2", "m-head"]
    assert platform.shared_memory_mb == 2048
    assert set(platform.files) == {"ray-serve-cai/launch.py", str(configuration(wanted()))}
    assert said[:4] == [
        "project: shared memory 2048 MB",
        "project: ray-serve-cai/launch.py",
        f"project: {configuration(wanted())}",
        "create m-head (4 CPU, 16 GB)",
    ]
    run(wanted(workers={"gpu": {"count": 3, "gpus": 1}}))
    assert len({one["environment"][TOKEN] for one in platform.applications.values()}) == 1
    assert len(platform.applications) == 4
    said.clear()
    run(wanted(workers={"gpu": {"count": 3, "gpus": 1}}))
    assert [line for line in said if not line.endswith(": running")] == []
    run(wanted(workers={"gpu": {"count": 1, "gpus": 2}}))
    assert names(platform) == ["m-gpu-1", "m-head"]
    Apply(client, said.append, clock, clock.sleep).run(teardown("m", client.applications()))
    assert platform.applications == {}


def test_interrupted_after_every_request_and_run_again(client: Client, platform: Platform, run: Callable[[CaiFile], None]) -> None:
    """Whatever was reached, the next run ends in the same state, with nothing twice. Between two requests nothing happens, so this is all."""
    run(wanted(shared_memory_gb=1))
    for position in range(len(platform.requests)):
        platform.applications.clear()
        platform.files.clear()
        platform.shared_memory_mb = 0
        left = itertools.count()

        def fault(method: str, path: str, left: Iterator[int] = left, position: int = position) -> Reply | None:
            if next(left) == position:
                raise Interrupted
            return None

        platform.faults = [fault]
        with pytest.raises(Interrupted):
            run(wanted(shared_memory_gb=1))
        platform.faults = []
        run(wanted(shared_memory_gb=1))
        assert names(platform) == ["m-gpu-1", "m-gpu-2", "m-head"]
        assert len({one["environment"][TOKEN] for one in platform.applications.values()}) == 1
        assert sorted(platform.files) == ["ray-serve-cai/launch.py", str(configuration(wanted()))]
        assert platform.shared_memory_mb == 1024
        assert not planned(client, wanted(shared_memory_gb=1)).changes


def test_an_answer_that_was_lost_makes_nothing_twice(run: Callable[[CaiFile], None], platform: Platform, said: list[str]) -> None:
    """The platform made the application, and a proxy answered with 502."""
    lost = [True]

    def fault(method: str, path: str) -> Reply | None:
        if method == "POST" and path.endswith("/applications") and lost[0]:
            lost[0] = False
            body = next(step.request for step in made.steps if step.request).body()
            platform.create_application(body)
            return Reply(502, "Bad Gateway")
        return None

    made = planned_(wanted(), [], Shared("n" * 48))
    platform.faults.append(fault)
    run(wanted())
    assert names(platform) == ["m-gpu-1", "m-gpu-2", "m-head"]
    assert "create m-head: it was made, though the answer was lost" in said


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(400, {"message": "quota exceeded: 1 GPU"}), PlatformRefusedError),
        (Reply(403, {"message": "forbidden"}), PlatformAccessError),
        (Reply(500, {"message": "internal"}), PlatformDownError),
        (Reply(503, "upstream"), PlatformDownError),
    ],
)
def test_a_step_that_fails_leaves_the_others_for_the_next_run(
    run: Callable[[CaiFile], None], platform: Platform, reply: Reply, kind: type[Exception]
) -> None:
    count = [0]

    def fault(method: str, path: str) -> Reply | None:
        if method == "POST" and path.endswith("/applications"):
            count[0] += 1
            return reply if count[0] == 3 else None
        return None

    platform.faults.append(fault)
    with pytest.raises(kind):
        run(wanted())
    assert names(platform) == ["m-gpu-1", "m-head"]
    run(wanted())
    assert names(platform) == ["m-gpu-1", "m-gpu-2", "m-head"]


def test_a_burst_of_429_only_takes_longer(run: Callable[[CaiFile], None], platform: Platform, slept: list[float]) -> None:
    for method in ("GET", "POST", "DELETE"):
        platform.fail(3, Reply(429, {"message": "slow down"}), method)
    run(wanted())
    assert names(platform) == ["m-gpu-1", "m-gpu-2", "m-head"]
    assert len(slept) == 9


def test_waiting_says_what_changes_and_ends_with_a_failure(client: Client, platform: Platform, said: list[str], clock: Clock) -> None:
    platform.nodes = Slow()
    todo = planned(client, wanted())
    apply = Apply(client, said.append, clock, clock.sleep)
    apply.run(todo)
    with pytest.raises(UnavailableError, match=r"3 applications not as planned after 60 s: m-head: starting; m-gpu-1: starting"):
        apply.wait(todo, 60)
    assert said[-3:] == ["m-head: starting", "m-gpu-1: starting", "m-gpu-2: starting"]
    platform.nodes.statuses = {"m-head": "APPLICATION_RUNNING", "m-gpu-1": "APPLICATION_FAILED"}
    with pytest.raises(PlatformRefusedError, match="the application 'm-gpu-1' failed; its log in the workspace says why"):
        apply.wait(todo, 60)


def test_a_restart_that_hangs_is_made_anew(client: Client, platform: Platform, said: list[str], clock: Clock) -> None:
    nodes = Slow()
    nodes.statuses = {"m-head": "APPLICATION_RUNNING", "m-gpu-1": "APPLICATION_RUNNING"}
    platform.nodes = nodes
    todo = planned(client, wanted())
    first = Apply(client, said.append, clock, clock.sleep)
    first.run(todo)
    hanging = next(one["id"] for one in platform.applications.values() if one["name"] == "m-gpu-2")

    def later(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > HANGING_S + 30:
            nodes.statuses["m-gpu-2"] = "APPLICATION_RUNNING"

    Apply(client, said.append, clock, later).wait(todo, 3600)
    assert any(line.startswith("m-gpu-2: starting for more than 600 s; it is deleted and made again") for line in said)
    assert hanging not in platform.applications
    assert names(platform) == ["m-gpu-1", "m-gpu-2", "m-head"]


@pytest.mark.parametrize("lost", ["PATCH", "POST"])
def test_a_change_that_was_interrupted_is_made_by_the_next_run(
    client: Client, platform: Platform, run: Callable[[CaiFile], None], lost: str
) -> None:
    """The change is written and its restart is lost, or the other way round: nothing runs on as it was while the plan says it is done."""
    run(wanted())
    started = {one["name"]: one["running_at"] for one in platform.applications.values()}
    platform.fail(
        99, Reply(400, {"message": "no"}), "POST" if lost == "POST" else "PATCH", ":restart" if lost == "POST" else "/applications/"
    )
    with pytest.raises(PlatformRefusedError):
        run(wanted(head={"cpu": 8}))
    platform.faults.clear()
    assert [step.name for step in planned(client, wanted(head={"cpu": 8})).changes] == ["m-head"]
    run(wanted(head={"cpu": 8}))
    head = next(one for one in platform.applications.values() if one["name"] == "m-head")
    assert head["cpu"] == 8
    assert head["running_at"] != started["m-head"]
    assert not planned(client, wanted(head={"cpu": 8})).changes


def test_a_restart_that_gets_no_answer_is_asked_for_again(platform: Platform, run: Callable[[CaiFile], None]) -> None:
    run(wanted())
    platform.fail(2, Reply(502, "Bad Gateway"), "POST", ":restart")
    run(wanted(head={"cpu": 8}))
    assert next(one for one in platform.applications.values() if one["name"] == "m-head")["cpu"] == 8


def test_files_that_an_interruption_took_are_put_back(client: Client, platform: Platform, run: Callable[[CaiFile], None]) -> None:
    run(wanted())
    before = dict(platform.files)
    platform.fail(2, Reply(503, "no"), "POST", "/files")
    del platform.files["ray-serve-cai/launch.py"]
    run(wanted())
    assert dict(platform.files) == before


def test_another_run_for_the_same_cluster_is_named(client: Client, platform: Platform) -> None:
    late = planned(client, wanted())
    Apply(client, lambda _: None).run(planned(client, wanted(head={"cpu": 8})))
    with pytest.raises(PlatformRefusedError, match="another run for this cluster is under way"):
        Apply(client, lambda _: None).run(late)


class Lagging(Nodes):
    """A platform that tells of a restart some looks later."""

    def __init__(self) -> None:
        self.late: dict[str, tuple[int, str, str]] = {}

    def start(self, application: dict[str, Any]) -> None:
        if application.get("shown_before"):
            status, at = application["shown_before"]
            application["later"] = (3, application["running_at"])
            application |= {"status": status, "running_at": at}
        else:
            application["status"] = "APPLICATION_RUNNING"

    def stop(self, application: dict[str, Any]) -> None:
        application["shown_before"] = (application["status"], application["running_at"])

    def refresh(self, application: dict[str, Any]) -> None:
        if later := application.get("later"):
            looks, at = later
            application["later"] = (looks - 1, at) if looks else None
            if not looks:
                application |= {"status": "APPLICATION_RUNNING", "running_at": at}


@pytest.mark.parametrize("status", ["APPLICATION_RUNNING", "APPLICATION_FAILED"])
def test_a_platform_that_tells_of_a_restart_late_is_waited_for(client: Client, platform: Platform, clock: Clock, status: str) -> None:
    platform.nodes = Lagging()
    first = planned(client, wanted())
    Apply(client, lambda _: None, clock, clock.sleep).run(first)
    head = next(one for one in platform.applications.values() if one["name"] == "m-head")
    head["status"] = status
    asked: list[str] = []

    def answers() -> bool:
        asked.append(head["running_at"])
        return True

    todo = planned(client, wanted(head={"cpu": 8}))
    apply = Apply(client, lambda _: None, clock, clock.sleep)
    former = head["running_at"]
    apply.run(todo)
    apply.wait(todo, 3600, answers)
    assert former not in asked


def test_a_spell_without_the_platform_does_not_end_a_wait(client: Client, platform: Platform, clock: Clock, said: list[str]) -> None:
    todo = planned(client, wanted())
    apply = Apply(client, said.append, clock, clock.sleep)
    apply.run(todo)
    platform.fail(7, Reply(503, "no"), "GET", "/applications")
    apply.wait(todo, 3600)
    assert any("Waiting goes on." in line for line in said)


def test_a_status_that_nobody_knows_is_left_alone(client: Client, platform: Platform, clock: Clock) -> None:
    platform.nodes = Slow()
    todo = planned(client, wanted())
    apply = Apply(client, lambda _: None, clock, clock.sleep)
    apply.run(todo)
    for one in platform.applications.values():
        one["status"] = "APPLICATION_SUSPENDED"
    ids = set(platform.applications)
    with pytest.raises(UnavailableError):
        apply.wait(todo, HANGING_S * 2)
    assert set(platform.applications) == ids
