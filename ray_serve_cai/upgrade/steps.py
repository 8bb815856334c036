"""The steps of an upgrade, and the way back.

Longer than most modules: the way there and the way back share what they stop, start and wait for, and are read as one story.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_serve_cai import logs
from ray_serve_cai.errors import EngineError, RayServeCaiError, ResourceError, UnavailableError, by_exit_code, counted
from ray_serve_cai.node import health, supervisor
from ray_serve_cai.node.address import Address
from ray_serve_cai.state import models_path
from ray_serve_cai.upgrade import docker, env_file, look, plan
from ray_serve_cai.upgrade.docker import Compose, Container
from ray_serve_cai.upgrade.look import Cluster
from ray_serve_cai.upgrade.plan import Plan
from ray_serve_cai.upgrade.probe import Probe, Silence, longest_silence

DEFAULT_FILE = "compose/cpu.yaml"
ENV_FILE = ".env"
POLL_S = 0.2
LATE_S = 10
"""What a launcher may take beyond its drain before it is ended."""
DOOR = re.compile(rf"-f {supervisor.RUN_DIR}\S*/haproxy\.cfg")
"""The front door among a head's processes."""
OK = 200
KEPT = "ray-serve-cai:before-upgrade"
"""A name for the old image where its own has moved to the new one."""


@dataclass(frozen=True)
class Options:
    """What the command line says; ``files`` and ``project`` are Compose's, ``timeout_s`` is for each start."""

    image: str
    files: tuple[str, ...] = ()
    project: str | None = None
    timeout_s: float = 600
    dry_run: bool = False
    rollback: bool = True
    allow_degraded: bool = False
    allow_changes: bool = False


@dataclass
class Outcome:
    """What became of it: ``done`` once the new image serves, ``error`` is why the cluster was stopped and yet is not on it."""

    plan: Plan
    planned: list[str]
    done: bool = False
    silence: Silence | None = None
    seconds: float = 0.0
    error: RayServeCaiError | None = None

    def lines(self) -> list[str]:
        """For people: the plan, or what was done."""
        if not self.done:
            return [] if self.error else self.planned
        return [f"upgraded from {self.plan.old} to {self.plan.image}" + (f"; {self.silence}" if self.silence else "")]

    def as_dict(self) -> dict[str, object]:
        """For scripts."""
        return {
            "from": self.plan.old,
            "to": self.plan.image,
            "needed": self.plan.needed,
            "changes": {change.what: [change.old, change.new] for change in self.plan.changes},
            "warnings": list(self.plan.warnings),
            "plan": self.planned,
            "done": self.done,
            "seconds": round(self.seconds, 1),
            "no_answer_s": round(self.silence.seconds, 1) if self.silence else None,
            "seen_by_clients": {name: round(seconds, 1) for name, seconds in self.silence.seen.items()} if self.silence else {},
            "error": str(self.error) if self.error else None,
        }


def run(options: Options) -> Outcome:
    """Plan, and unless only the plan is wanted, act; what keeps the cluster from the new image after its stop is in the outcome.

    Raises:
        RayServeCaiError: the upgrade cannot begin; nothing was touched.
    """
    started = time.monotonic()
    given = options.files or (() if os.environ.get("COMPOSE_FILE") else (DEFAULT_FILE,))
    compose = Compose(given, options.project)
    directory = Path(given[0] if given else os.environ["COMPOSE_FILE"].split(os.environ.get("COMPOSE_PATH_SEPARATOR", ":"))[0]).parent

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # whoever read it may be gone; the cluster must not stay half-way for that
            print(f"upgrade: {time.monotonic() - started:.0f} s: {line}", file=sys.stderr, flush=True)

    with _alone(directory), _interruptible():
        say("looking at the cluster and the image")
        cluster = look.find(compose, options.image)
        seen = look.at(compose, cluster, options.image, say)
        planned = plan.make(seen, allow_degraded=options.allow_degraded, allow_changes=options.allow_changes)
        outcome = Outcome(planned, planned.lines(options.timeout_s, rollback=options.rollback))
        if planned.needed:
            for service in (planned.head, *planned.others):
                look.check_configuration(compose, options.image, service)
        if not planned.needed or options.dry_run:
            return outcome
        for warning in planned.warnings:
            say(f"warning: {warning}")
        _Steps(options, compose, directory / ENV_FILE, cluster=cluster, outcome=outcome, say=say).take()
        outcome.seconds = time.monotonic() - started
    shell = os.environ.get("IMAGE")
    if outcome.done and shell not in (None, options.image):
        say(f"warning: IMAGE is {shell} in this shell and precedes {directory / ENV_FILE}; unset it before the next docker compose up")
    return outcome


class _Steps:
    """One upgrade, once everything is known."""

    def __init__(self, options: Options, compose: Compose, file: Path, *, cluster: Cluster, outcome: Outcome, say: look.Say) -> None:
        self._options = options
        self._compose = compose
        self._file = file
        self._cluster = cluster
        self._outcome = outcome
        self._plan = outcome.plan
        self._say = say
        self._door: Address | None = cluster.head.door

    def take(self) -> None:
        """Go to the new image, and back if that fails.

        Raises:
            RayServeCaiError: the image failed before anything was touched.
        """
        code, before = look.health_of(self._cluster.head)
        old = self._old_name()
        kept = env_file.read(self._file)
        self._warm_up()
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(Probe(lambda: self._door, models_path(model["name"]))) for model in before["models"]]
            reason, fate = None, ""
            try:
                self._stop(old)
                env_file.replace(self._file, env_file.with_image(kept or "", self._plan.image))
                self._start(self._plan.image)
                self._prove()
            except (RayServeCaiError, OSError, KeyboardInterrupt) as error:
                reason = _reason(error)
                fate = (
                    self._back(old, kept, "" if code == OK else before["phase"], reason)
                    if self._options.rollback
                    else "it was left as it is (--no-rollback)"
                )
        silences = [longest_silence(probe.samples) for probe in probes]
        self._outcome.done = reason is None
        self._outcome.silence = max(silences, key=lambda silence: silence.seconds, default=None)
        if reason:
            said = f"; {self._outcome.silence}" if self._outcome.silence else ""
            self._outcome.error = type(reason)(f"{self._plan.image} does not serve here: {str(reason).rstrip('.')}; {fate}{said}.")

    def _old_name(self) -> str:
        """A name under which the old image can be started again."""
        if docker.image_id(self._plan.old) == self._cluster.head.image_id:
            return self._plan.old
        docker.docker("tag", self._cluster.head.image_id, KEPT)
        self._say(f"{self._plan.old} is another image by now; the one that runs is called {KEPT} from here on")
        return KEPT

    def _warm_up(self) -> None:
        """Read from disk now what the start would read, and see that the engine can be imported at all; serving goes first."""
        engine = self._plan.engine
        self._say(f"importing {engine} once from {self._plan.image}")
        aside = ("--rm", "--network", "none", "--cpu-shares", "256")
        done = docker.attempt("run", *aside, "--entrypoint", "python3", self._plan.image, "-c", f"import ray.serve, {engine}")
        if done.returncode:
            raise EngineError(f"{self._plan.image} cannot import {engine}: {docker.last_line(done.stderr)}; nothing was touched.")

    def _stop(self, old: str) -> None:
        """The head closes its door to new requests and lets those end that run; then all ends at once, for nothing is served any more.

        The rest of a head's way out takes ten seconds and leaves nothing that a kill does not (measured: docs/upgrade.md).
        """
        self._say(f"stopping {self._plan.head}: no new requests, those that run may take {self._plan.drain_s} s")
        head, running = self._cluster.head.id, self._running()
        if DOOR.search(docker.processes(head)):
            docker.docker("kill", "--signal", "SIGTERM", head)
            deadline = time.monotonic() + self._plan.drain_s + LATE_S
            while DOOR.search(docker.processes(head)) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        else:  # a door that cannot be watched
            self._compose(old, "stop", self._plan.head)
        docker.end(running)

    def _running(self) -> list[str]:
        services = (self._plan.head, *self._plan.others)
        return [one.id for one in docker.containers(self._cluster.project) if one.service in services and one.running]

    def _start(self, image: str) -> None:
        self._say(f"starting {', '.join((self._plan.head, *self._plan.others))} with {image}")
        scale = [word for name, number in self._plan.scale for word in ("--scale", f"{name}={number}")]
        self._compose(image, "up", "--detach", "--no-build", "--no-deps", *scale, self._plan.head, *self._plan.others)

    def _prove(self) -> None:
        """Wait for the new head, which is not started again by its restart policy until it has been ready once: its end says why.

        Raises:
            RayServeCaiError: it ended, or the time is over.
        """
        head = self._head()
        docker.docker("update", "--restart=no", head.id)
        self._wait()
        docker.docker("update", f"--restart={head.restart_policy}", head.id)

    def _head(self) -> Container:
        head = next((one for one in docker.containers(self._cluster.project) if one.service == self._plan.head), None)
        if head is None:
            raise EngineError("the head's container is gone; did somebody remove it?")
        self._door = head.door
        return head

    def _wait(self, enough: str = "") -> None:
        """Until the cluster is ready with every node, or in the phase that is enough.

        Raises:
            RayServeCaiError: the head ended, or the time is over.
        """
        deadline = time.monotonic() + self._options.timeout_s
        said = ""
        while True:
            head = self._head()
            if not head.running:
                raise _ended(head)
            line, done = self._progress(head, enough)
            if line != said:
                said = line
                self._say(line)
            if done:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(f"not ready after {self._options.timeout_s:.0f} s; last seen: {said}")
            time.sleep(POLL_S)

    def _progress(self, head: Container, enough: str) -> tuple[str, bool]:
        code, ready = look.health_of(head)
        line = f"{ready['phase']}: {ready['detail']}"
        if code != OK:
            return line, ready["phase"] == enough
        if self._options.allow_degraded:
            return line, True
        assert head.door is not None  # it has answered there
        alive = health.ask("/health", head.door.port, head.door.host)[1]["nodes"]["alive"]
        return f"{line}; {alive} of {counted(self._plan.nodes, 'node')}", alive >= self._plan.nodes

    def _back(self, old: str, kept: str | None, phase: str, reason: RayServeCaiError) -> str:
        """The old image again; what became of that."""
        self._say(f"{self._plan.image} does not serve; going back to {old}")
        try:
            env_file.replace(self._file, env_file.with_image(kept or "", old) if old == KEPT else kept)
            docker.end(self._running())
            self._start(old)
            self._wait(phase)
        except (RayServeCaiError, OSError) as error:
            return f"and {old} does not come back: {str(error).rstrip('.')}"
        return f"{old} is back"


def _reason(error: BaseException) -> RayServeCaiError:
    if isinstance(error, RayServeCaiError):
        return error
    return ResourceError(str(error)) if isinstance(error, OSError) else UnavailableError("interrupted")


def _ended(head: Container) -> RayServeCaiError:
    """What a head that ended says in its log, as the error that its exit code means."""
    done = docker.attempt("logs", "--tail", "200", head.id)
    errors = [said for line in (done.stdout + done.stderr).splitlines() if (said := logs.error_in(line)) is not None]
    said = errors[-1] if errors else f"its head left with exit code {head.exit_code}"
    return by_exit_code(head.exit_code)(said)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No two upgrades with the same compose files at a time.

    Raises:
        ResourceError: another one goes on.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ResourceError(f"another upgrade with the files in {directory} goes on; wait for its end.") from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A lost terminal, or a polite kill, is an interruption like Ctrl-C: the old image comes back."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
