"""What it takes to bring a project's applications to what a configuration says. Pure: nothing is asked and nothing is done here.

An application that merely has a name that the cluster needs belongs to somebody else, and is never touched. Where the digest of what was
asked for differs, the application is changed and restarted. The token is made once: a plan takes it from an application that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ray_serve_cai.cai.config import CaiFile
from ray_serve_cai.cai.models import Application, ApplicationRequest, Status
from ray_serve_cai.cai.requests import CLUSTER, KEY, SECRETS, SPEC, TOKEN, Shared, project_files, wants
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
    """Path in the project -> contents; put there before applications are made or restarted."""

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action is not Action.KEEP)

    def as_dict(self) -> dict[str, Any]:
        """For scripts; without secrets."""
        steps = [{"action": step.action.value, "name": step.name, "id": step.id or None, "why": list(step.why)} for step in self.steps]
        return {"cluster": self.cluster, "steps": steps, "shared_memory_mb": self.shared_memory_mb, "files": list(self.files)}

    def __str__(self) -> str:
        lines = [f"~ change  project (shared memory: {self.shared_memory_mb} MB)"] if self.shared_memory_mb else []
        lines += [str(step) for step in self.steps]
        count = len(self.changes) + bool(self.shared_memory_mb)
        return "\n".join([*lines, f"{count} to do" if count else "nothing to do"])


def plan(wanted: CaiFile, found: Sequence[Application], shared: Shared, shared_memory_mb: int) -> Plan:
    """The plan from what is there to what is wanted.

    Args:
        found: all applications of the project.
        shared: its token is used where no application of the cluster has one; secrets that it lacks are those of the cluster.
        shared_memory_mb: the project's limit now.

    Raises:
        PlatformRefusedError: an application that is not the cluster's has a name or a subdomain that the cluster needs.
        UsageError: everybody is to be let in, and there is no key.
    """
    cai = wanted.cai
    own = {one.name: one for one in found if one.environment.get(CLUSTER) == cai.name}
    shared = _kept(shared, own.values())
    if cai.authentication == "keys" and not shared.secrets.get(KEY):
        raise UsageError(f"cai.authentication is 'keys', and no key is given: set {KEY} or {KEY}_FILE, or let the platform ask its users.")
    requests = wants(wanted, shared)
    subdomains = {request.subdomain for request in requests.values()}
    for one in found:
        if one.environment.get(CLUSTER) != cai.name and (one.name in requests or one.subdomain in subdomains):
            what = f"named {one.name!r}" if one.name in requests else f"at the subdomain {one.subdomain!r}"
            raise PlatformRefusedError(f"the project has an application {what} that is not the cluster's; change cai.name, or remove it.")
    steps = [Step(Action.DELETE, name, id=one.id, why=(one.status.word,)) for name, one in own.items() if name not in requests]
    steps += [_step(request, own.get(name)) for name, request in requests.items()]
    needed = (cai.shared_memory_gb or 0) * 1024
    return Plan(cai.name, tuple(steps), needed if needed > shared_memory_mb else None, project_files(wanted))


def _kept(shared: Shared, own: Iterable[Application]) -> Shared:
    """With what the cluster's applications were given before: a token is made once, and a shell without a key takes none away."""
    there = [one.environment for one in own]
    token = next((env[TOKEN] for env in there if env.get(TOKEN)), shared.token)
    secrets = {name: value or next((env[name] for env in there if env.get(name)), "") for name, value in shared.secrets.items()}
    return Shared(token, secrets)


def teardown(cluster: str, found: Sequence[Application]) -> Plan:
    """The plan that leaves nothing of a cluster: workers first, so that the head tells nobody that they are missing."""
    own = [one for one in found if one.environment.get(CLUSTER) == cluster]
    own.sort(key=lambda one: one.name == f"{cluster}-head")
    return Plan(cluster, tuple(Step(Action.DELETE, one.name, id=one.id, why=(one.status.word,)) for one in own))


def _step(request: ApplicationRequest, there: Application | None) -> Step:
    if there is None:
        return Step(Action.CREATE, request.name, request, why=(_size(request),))
    if there.environment.get(SPEC) != request.environment[SPEC]:
        return Step(Action.CHANGE, request.name, request, there.id, differences(there, request))
    if there.status in (Status.FAILED, Status.STOPPED, Status.STOPPING):
        return Step(Action.RESTART, request.name, request, there.id, (there.status.word,))
    return Step(Action.KEEP, request.name, request, there.id, (there.status.word,))


def _size(request: ApplicationRequest) -> str:
    gpus = f", {request.nvidia_gpu} GPU" if request.nvidia_gpu else ""
    return f"{request.cpu:g} CPU, {request.memory:g} GB{gpus}"


def differences(there: Application, request: ApplicationRequest) -> tuple[str, ...]:
    """What a change changes, in words without secrets."""
    told = []
    for name in ("cpu", "memory", "nvidia_gpu", "runtime_identifier", "script", "bypass_authentication"):
        old, new = getattr(there, name), getattr(request, name)
        if old != new:
            told.append(f"{name}: {_short(old)} -> {_short(new)}")
    for name in sorted({*there.environment, *request.environment} - {SPEC}):
        old, new = there.environment.get(name), request.environment.get(name)
        if new is not None and old != new:
            told.append(f"{name}: another value" if name in SECRETS else f"{name}: {_short(old)} -> {_short(new)}")
    return tuple(told) or ("what the former plan set",)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
