"""Brings a project's applications to what a plan says. The only place of these effects; it may be interrupted anywhere and run again.

Nothing but the platform remembers what was done: the next plan is made of what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.models import Application, Status
from ray_serve_cai.cai.plan import Action, Plan, Step
from ray_serve_cai.cai.requests import CLUSTER, unfinished
from ray_serve_cai.errors import PlatformDownError, PlatformMissingError, PlatformRefusedError, UnavailableError, counted

POLL_S = 5.0
HANGING_S = 600.0
"""A restart that is STARTING for longer is deleted and created again: the platform is known to hang there."""
LAG_S = 60.0
"""How long the platform may take to tell of a restart."""
GONE_S = 60.0
Say = Callable[[str], None]


class Apply:
    """One run of a plan."""

    def __init__(
        self, client: Client, say: Say, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._begun: set[str] = set()

    def run(self, plan: Plan) -> None:
        """Do all steps, and return when each is begun.

        Raises:
            PlatformError: a step cannot be done; what was done before it stays, and is kept by the next run.
        """
        if plan.shared_memory_mb:
            self._say(f"project: shared memory {plan.shared_memory_mb} MB")
            self._client.update_project({"shared_memory_limit": plan.shared_memory_mb})
        for path, content in plan.files.items():
            self._say(f"project: {path}")
            self._client.upload(path, content)
        for step in plan.changes:
            self._say(f"{step.action.value} {step.name}" + (f" ({'; '.join(step.why)})" if step.why else ""))
            self._do(step)

    def wait(self, plan: Plan, timeout_s: float, answers: Callable[[], bool] | None = None) -> None:
        """Wait until each application of a plan runs, and each that was to go is gone; a word whenever one's status is another.

        Args:
            answers: asked whenever the head runs: whether it serves. It may raise.

        Raises:
            PlatformRefusedError: an application failed.
            UnavailableError: the time is over.
        """
        wanted = {step.name: step for step in plan.steps if step.request}
        gone = {step.id for step in plan.steps if step.action is Action.DELETE}
        said: dict[str, Status] = {}
        began: dict[str, float] = {}
        deadline = self._clock() + timeout_s
        while True:
            try:
                there = self._client.applications()
            except PlatformDownError as error:
                if self._clock() > deadline:
                    raise
                self._say(f"{error} Waiting goes on.")
                self._sleep(POLL_S)
                continue
            left = [one.name for one in there if one.id in gone]
            begun: set[str] = set()
            found = {one.name: one for one in there if one.name in wanted and one.id not in gone}
            for name, one in found.items():
                if said.get(name) is not one.status:
                    said[name] = one.status
                    began[name] = self._clock()
                    self._say(f"{name}: {one.status.word}")
                if not self._has_begun(wanted[name], one, began[name]):
                    continue
                begun.add(name)
                if one.status is Status.FAILED:
                    raise PlatformRefusedError(f"the application {name!r} failed; its log in the workspace says why. Then run this again.")
                if one.status is Status.STARTING and self._clock() - began[name] > HANGING_S:
                    self._again(one, wanted[name])
                    began[name] = self._clock()
            waiting = [name for name in wanted if name not in begun or not found[name].running]
            head = f"{plan.cluster}-head"
            serves = answers is None or (head not in waiting and answers())
            if not waiting and not left and serves:
                return
            if self._clock() > deadline:
                late = [*(f"{name}: {_word(found.get(name))}" for name in waiting), *(f"{name}: not gone" for name in left)]
                late = late or [f"{head}: its models do not answer yet"]
                count = counted(len(late), "application")
                raise UnavailableError(f"{count} not as planned after {timeout_s:g} s: {'; '.join(late)}. It goes on; run this again.")
            self._sleep(POLL_S)

    def tidy(self, plan: Plan) -> None:
        """Remove what nothing reads any more."""
        for path in plan.stale:
            self._client.delete_file(path)

    def _do(self, step: Step) -> None:
        if step.action is Action.DELETE:
            self._client.delete_application(step.id)
        elif step.action is Action.RESTART:
            self._client.restart_application(step.id)
        elif step.request is not None and step.action is Action.CHANGE:
            self._client.update_application(step.id, unfinished(step.request))  # until it is restarted, the next plan sees a change
            self._client.restart_application(step.id)
            self._client.update_application(step.id, step.request)
        elif step.request is not None:
            self._create(step)

    def _create(self, step: Step) -> None:
        """Make an application; where the answer was lost, look whether it was made."""
        assert step.request is not None
        try:
            self._client.create_application(step.request)
        except PlatformDownError:
            marks: Mapping[str, str] = step.request.environment
            if not any(one.name == step.name and marks.items() <= one.environment.items() for one in self._client.applications()):
                raise
            self._say(f"create {step.name}: it was made, though the answer was lost")
        except PlatformRefusedError as error:
            there = next((one for one in self._client.applications() if one.name == step.name), None)
            if there is None or there.environment.get(CLUSTER) != step.request.environment[CLUSTER]:
                raise
            raise PlatformRefusedError(
                f"the application {step.name!r} came to be meanwhile: another run for this cluster is under way. "
                "Wait for it, and run this again."
            ) from error

    def _again(self, hanging: Application, step: Step) -> None:
        self._say(f"{hanging.name}: starting for more than {HANGING_S:g} s; it is deleted and made again")
        try:
            self._client.delete_application(hanging.id)
        except PlatformMissingError:
            self._say(f"{hanging.name}: it was gone already")
        deadline = self._clock() + GONE_S
        while self._clock() < deadline and any(one.id == hanging.id for one in self._client.applications()):
            self._sleep(POLL_S)
        self._create(step)

    def _has_begun(self, step: Step, one: Application, since: float) -> bool:
        """Whether what is seen is of the life that a restart began: the platform may still tell of the former one for a moment."""
        if step.was is None or step.name in self._begun or (one.status, one.running_at) != step.was or self._clock() - since > LAG_S:
            self._begun.add(step.name)
            return True
        return False


def _word(application: Application | None) -> str:
    return "not there" if application is None else application.status.word
