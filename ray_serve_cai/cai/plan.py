"""What it takes to bring a project's applications to what a configuration says. Pure: nothing is asked and nothing is done here.

An application that merely has a name that the cluster needs belongs to somebody else, and is never touched. Where the digest of what was
asked for differs, the application is changed and restarted. The token is made once: a plan takes it from an application that is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ray_serve_cai.cai.config import CaiFile
from ray_serve_cai.cai.models import Application, ApplicationRequest, Project, Status
from ray_serve_cai.cai.requests import CLUSTER, CONFIG, KEY, SPEC, TOKEN, Shared, owned, project_files, wants
from ray_serve_cai.errors import PlatformRefusedError, UsageError


class Action(str, Enum):
    """What becomes of one application."""

    KEEP = "keep"
    CREATE = "create"
    CHANGE = "change"
    RESTART = "restart"
    DELETE = "delete"


@dataclass(frozen=True)
class Step:
    """One application and what becomes of it.

    Attributes:
        request: what it is to be; None for one that goes.
        id: of the one that is there; empty for one that is made.
        why: what differs, or what its status is; without secrets.
    """

    action: Action
    name: str
    request: ApplicationRequest | None = None
    id: str = ""
    why: tuple[str, ...] = ()
    was: tuple[Status, str] | None = None
    """Status and start of the life that a restart ends."""

    def __str__(self) -> str:
        sign = {Action.KEEP: " ", Action.CREATE: "+", Action.CHANGE: "~", Action.RESTART: "~", Action.DELETE: "-"}[self.action]
        told = f" ({'; '.join(self.why)})" if self.why else ""
        return f"{sign} {self.action.value:7} {self.name}{told}"


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are done: what goes first, for the quota's sake, then the head, then workers."""

    cluster: str
    steps: tuple[Step, ...]
    shared_memory_mb: int | None = None
    """What the project's limit must be raised to, or None."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Path in the project -> contents, of what is not there yet; put there before applications are made or restarted."""
    stale: tuple[str, ...] = ()
    """Configurations that nothing reads any more once this is done."""

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action is not Action.KEEP)

    def as_dict(self) -> dict[str, Any]:
        """For scripts; without secrets."""
        steps = [{"action": step.action.value, "name": step.name, "id": step.id or None, "why": list(step.why)} for step in self.steps]
        return {"cluster": self.cluster, "steps": steps, "shared_memory_mb": self.shared_memory_mb, "files": list(self.files)}

    def __str__(self) -> str:
        lines = [f"~ change  project (shared memory: {self.shared_memory_mb} MB)"] if self.shared_memory_mb else []
        lines += [f"+ create  {path} in the project" for path in self.files]
        lines += [str(step) for step in self.steps]
        count = len(self.changes) + len(self.files) + bool(self.shared_memory_mb)
        return "\n".join([*lines, f"{count} to do" if count else "nothing to do"])


@dataclass(frozen=True)
class There:
    """What is there before a plan.

    Attributes:
        applications: all of the project.
        project: its limits and its variables, which the platform gives to new applications.
        files: path -> size in bytes, of the directory that the cluster uses.
    """

    applications: Sequence[Application]
    project: Project
    files: Mapping[str, int] = field(default_factory=dict)


def plan(wanted: CaiFile, there: There, shared: Shared) -> Plan:
    """The plan from what is there to what is wanted.

    Args:
        shared: its token is used where no application of the cluster has one; secrets that it lacks are those of the cluster.

    Raises:
        PlatformRefusedError: an application that is not the cluster's has a name or a subdomain that the cluster needs.
        UsageError: everybody is to be let in, and there is no key.
    """
    cai, found = wanted.cai, there.applications
    own = {one.name: one for one in owned(found, cai.name)}
    shared = _kept(shared, own.values())
    if cai.authentication == "platform":  # whose users' own credentials are in the header that this key would be in
        shared = Shared(shared.token, {name: value for name, value in shared.secrets.items() if name != KEY})
    if cai.authentication == "keys" and not shared.secrets.get(KEY):
        raise UsageError(f"cai.authentication is 'keys', and no key is given: set {KEY} or {KEY}_FILE, or let the platform ask its users.")
    requests = wants(wanted, shared)
    subdomains = {request.subdomain for request in requests.values()}
    for one in found:
        if one.environment.get(CLUSTER) != cai.name and (one.name in requests or one.subdomain in subdomains):
            what = f"named {one.name!r}" if one.name in requests else f"at the subdomain {one.subdomain!r}"
            raise PlatformRefusedError(f"the project has an application {what} that is not the cluster's; change cai.name, or remove it.")
    steps = [Step(Action.DELETE, name, id=one.id, why=(one.status.word,)) for name, one in own.items() if name not in requests]
    steps += [_step(request, own.get(name), there.project.environment) for name, request in requests.items()]
    needed = (cai.shared_memory_gb or 0) * 1024
    wants_files = project_files(wanted)
    files = {path: content for path, content in wants_files.items() if there.files.get(path) != len(content)}
    former = re.compile(re.escape(str(cai.directory / cai.name)) + r"\.[0-9a-f]{16}\.yaml")
    stale = tuple(path for path in there.files if former.fullmatch(path) and path not in wants_files)
    return Plan(cai.name, tuple(steps), needed if needed > there.project.shared_memory_limit else None, files, stale)


def _kept(shared: Shared, own: Iterable[Application]) -> Shared:
    """With what the cluster's applications were given before: a token is made once, and a shell without a key takes none away."""
    there = [one.environment for one in own]
    token = next((env[TOKEN] for env in there if env.get(TOKEN)), shared.token)
    secrets = {name: value or next((env[name] for env in there if env.get(name)), "") for name, value in shared.secrets.items()}
    return Shared(token, secrets)


def teardown(cluster: str, found: Sequence[Application]) -> Plan:
    """The plan that leaves nothing of a cluster: workers first, so that the head tells nobody that they are missing."""
    own = sorted(owned(found, cluster), key=lambda one: one.name == f"{cluster}-head")
    return Plan(cluster, tuple(Step(Action.DELETE, one.name, id=one.id, why=(one.status.word,)) for one in own))


def _step(request: ApplicationRequest, there: Application | None, project: Mapping[str, str]) -> Step:
    if there is None:
        return Step(Action.CREATE, request.name, request, why=(_size(request),))
    if there.environment.get(SPEC) != request.environment[SPEC]:
        kept = request.model_copy(update={"environment": {**project, **request.environment}})  # which a change would take away
        return Step(Action.CHANGE, request.name, kept, there.id, differences(there, request), was=(there.status, there.running_at))
    if there.status in (Status.FAILED, Status.STOPPED, Status.STOPPING):
        return Step(Action.RESTART, request.name, request, there.id, (there.status.word,), was=(there.status, there.running_at))
    return Step(Action.KEEP, request.name, request, there.id, (there.status.word,))


def _size(request: ApplicationRequest) -> str:
    gpus = f", {request.nvidia_gpu} GPU" if request.nvidia_gpu else ""
    return f"{request.cpu:g} CPU, {request.memory:g} GB{gpus}"


def differences(there: Application, request: ApplicationRequest) -> tuple[str, ...]:
    """What a change changes, in words without secrets."""
    told = []
    for name in ("cpu", "memory", "nvidia_gpu", "accelerator_label_id", "runtime_identifier", "script", "bypass_authentication"):
        old, new = getattr(there, name), getattr(request, name) or type(getattr(there, name))()
        if old != new:
            told.append(f"{name}: {_short(old)} -> {_short(new)}")
    if there.environment.get(CONFIG) != request.environment.get(CONFIG):
        told.append("the models or their settings; the head restarts, and serves nothing until it is back")
    for name in sorted(request.environment.keys() - {SPEC, CONFIG}):
        if there.environment.get(name) != request.environment[name]:
            told.append(f"{name}: another value")  # which may be a secret
    return tuple(told) or ("what the former plan set",)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
