"""A cluster of applications: planned, brought up, looked at, scaled and taken down. Commands and `CAIClusterManager` stand on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ray_serve_cai.cai import front, scale, session_workers, settings
from ray_serve_cai.cai.apply import Apply, Say
from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.config import CaiFile
from ray_serve_cai.cai.models import Application, ApplicationRequest
from ray_serve_cai.cai.plan import Plan, There, plan, teardown
from ray_serve_cai.cai.requests import KEY, SECRETS, TOKEN, WORKERS, Shared, owned
from ray_serve_cai.cai.settings import Settings
from ray_serve_cai.errors import PlatformMissingError, PlatformRefusedError, RayServeCaiError
from ray_serve_cai.node import secret_files, token

MOST_LOOKED_AT = 16
"""Workers that are asked at a time why they have not joined."""


@dataclass(frozen=True)
class Status:
    """What is there of a cluster.

    Attributes:
        url: of the head.
        seen: what the head says; None where there is no head.
    """

    name: str
    url: str
    applications: tuple[Application, ...]
    seen: front.Seen | None

    @property
    def expected(self) -> int:
        """How many nodes there are to be."""
        started = [session_workers.told(one.environment[WORKERS]).workers for one in self.applications if one.environment.get(WORKERS)]
        return len(self.applications) + sum(map(len, started))

    @property
    def ready(self) -> bool | None:
        """Whether all nodes have joined and the models answer; None where that cannot be seen from here."""
        if self.seen is None or not all(one.running for one in self.applications):
            return False
        return None if self.seen.status == "unseen" else self.seen.status == "ok" and self.seen.nodes >= self.expected

    def as_dict(self) -> dict[str, Any]:
        """For scripts; without secrets."""
        shown = ("id", "name", "subdomain", "cpu", "memory", "nvidia_gpu", "runtime_identifier")
        applications = [{**{name: getattr(one, name) for name in shown}, "status": one.status.word} for one in self.applications]
        head = {"status": self.seen.status, "detail": self.seen.line, **self.seen.document} if self.seen else None
        return {"name": self.name, "url": self.url, "ready": self.ready, "applications": applications, "head": head}


class Cluster:
    """The cluster of one name in one project.

    Args:
        client: see `ray_serve_cai.cai.client`, whose errors all methods may raise.
        found: where the platform is.
        say: takes lines of progress.
        transport: of requests to the head, in tests.
    """

    def __init__(
        self,
        client: Client,
        found: Settings,
        say: Say,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._settings = found
        self._say = say
        self._transport = transport
        self._apply = Apply(client, say, clock, sleep)

    def plan(self, wanted: CaiFile, env: Mapping[str, str]) -> Plan:
        """What it takes; secrets come from the environment, or are those that the cluster has.

        Raises:
            PlatformRefusedError: as `plan`, or a runtime is not in the catalog.
        """
        self._say_where()
        if wanted.cai.authentication == "platform" and env.get(KEY):
            self._say(f"{KEY} is set here and not used: with authentication: platform the models ask for no key of their own")
        made = plan(wanted, there(self._client, wanted), shared(env))
        self._check_runtimes(made)
        return made

    def _say_where(self) -> None:
        self._say(f"workspace {self._settings.host}, project {self._settings.project_id}")

    def _check_runtimes(self, made: Plan) -> None:
        wanted = {step.request.runtime_identifier for step in made.changes if step.request}
        missing = sorted(wanted - {one.image_identifier for one in self._client.runtimes()}) if wanted else []
        if missing:
            raise PlatformRefusedError(
                f"the runtime {missing[0]!r} is not in the workspace's catalog; ray-serve-cai cai register-runtime {missing[0]}"
            )

    def up(self, wanted: CaiFile, made: Plan, timeout_s: float | None) -> Status:
        """Do what a plan says, and return when all nodes have joined and the head says that its models answer.

        Args:
            timeout_s: seconds to wait; None not to wait at all.

        Raises:
            RayServeCaiError: what it ended with; the message ends with what is left.
        """
        name, asks = wanted.cai.name, wanted.cai.authentication == "platform"
        told = front.told_in(wanted.cai)
        nodes = [step.request for step in made.steps if step.request]
        expected = 1 + sum(group.count for group in wanted.cai.workers.values())
        said: dict[str, str] = {}

        def look(node: ApplicationRequest) -> front.Seen:
            url = front.address(self._settings, node.subdomain)
            asks = not node.bypass_authentication
            seen = front.look(self._settings, url, platform_asks=asks, told=told if node is nodes[0] else None, transport=self._transport)
            if said.get(node.name) != seen.line:
                said[node.name] = seen.line
                self._say(f"{node.name}: {seen.line}")
            return seen

        def cannot_join(worker: ApplicationRequest) -> None:
            seen = look(worker)
            if seen.status == "failed":
                raise PlatformRefusedError(f"{worker.name} cannot join: {seen.line.partition(': ')[2]}")

        def answers() -> bool:
            head, *workers = nodes
            seen = look(head)
            if seen.status == "failed":
                raise PlatformRefusedError(f"the cluster cannot serve: {seen.line.partition(': ')[2]}")
            if seen.status != "ok" or seen.nodes >= expected:
                return seen.status in ("ok", "unseen")
            self._say(f"{name}: {seen.nodes} of {expected} nodes have joined")
            for worker in workers[:MOST_LOOKED_AT]:
                cannot_join(worker)
            return False

        try:
            self._apply.run(made)
            if timeout_s is not None:
                self._apply.wait(made, timeout_s, answers)
                self._apply.tidy(made)
        except RayServeCaiError as error:
            raise type(error)(f"{error} {self._left(name)}") from error
        return self.status(name, platform_asks=asks, told=told)

    def status(self, name: str, *, platform_asks: bool = True, told: Path | None = None) -> Status:
        """What is there."""
        own = tuple(sorted(owned(self._client.applications(), name), key=_head_first))
        url = front.address(self._settings, name)
        head = next((one for one in own if one.name == f"{name}-head"), None)
        asks = platform_asks and not (head and head.bypass_authentication)
        seen = front.look(self._settings, url, platform_asks=asks, told=told, transport=self._transport) if head else None
        return Status(name, url, own, seen)

    def counts(self, wanted: CaiFile) -> dict[str, int]:
        """How many workers each group of a file has now."""
        return scale.counts(wanted, self._client.applications())

    def down(self, name: str, timeout_s: float) -> int:
        """Delete all applications of a cluster, and return when they are gone: how many there were."""
        self._say_where()
        made = teardown(name, self._client.applications())
        self._apply.run(made)
        self._apply.wait(made, timeout_s)
        return len(made.steps)

    def _left(self, name: str) -> str:
        """What is there of the cluster, for an error; nothing where that cannot be found out."""
        try:
            own = owned(self._client.applications(), name)
        except RayServeCaiError:
            return "What is left cannot be seen now; `ray-serve-cai cai status` tells it."
        if not own:
            return "Nothing of the cluster is there."
        left = ", ".join(f"{one.name} ({one.status.word})" for one in sorted(own, key=_head_first))
        return f"What is there: {left}. The same command goes on from here; `ray-serve-cai cai down` removes it."


@contextmanager
def opened(
    wanted: CaiFile | None, options: Mapping[str, str | None], env: Mapping[str, str], say: Say
) -> Iterator[tuple[Client, Settings, Mapping[str, str]]]:
    """A connection to the platform, where it is, and the environment with the secrets that it names files for.

    Args:
        wanted: a file that may say where the platform is; None where there is none.
        options: ``host`` and ``project_id`` of a command line, which precede environment and file.
    """
    env = secret_files.read(env)
    cai = wanted.cai if wanted else None
    in_file = {"host": cai.host, "project_id": cai.project_id, "ca_bundle": cai.ca_bundle} if cai else {}
    found = settings.settings(options, env, in_file)
    with Client(found, say=say) as client:
        yield client, found, env


def there(client: Client, wanted: CaiFile) -> There:
    """What is there before a plan: one look at the platform."""
    try:
        files = {one.path: one.file_size for one in client.files(str(wanted.cai.directory)) if not one.is_dir}
    except PlatformMissingError:
        files = {}
    return There(client.applications(), client.project(), files)


def shared(env: Mapping[str, str]) -> Shared:
    """What nodes are told of this shell's secrets, and a new token where it has none."""
    return Shared(token.given(env) or token.new(), {name: env.get(name, "").strip() for name in sorted(SECRETS - {TOKEN})})


def _head_first(application: Application) -> tuple[bool, str]:
    return not application.name.endswith("-head"), application.name
