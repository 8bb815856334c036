"""What an upgrade would do, and why it may not: decided from what was seen, before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ray_serve_cai.errors import ConfigError, ResourceError, UnavailableError, VersionMismatchError, counted
from ray_serve_cai.node.join import MUST_BE_EQUAL
from ray_serve_cai.node.manifest import Manifest

_GIB = 1 << 30
SPARE_BYTES = _GIB
"""What must stay free on Docker's disk: logs, Ray's session directories and new containers' layers."""
HEADS = ("head", "single")


@dataclass(frozen=True)
class Service:
    """A service whose containers are nodes, as it is and as it would be.

    Attributes:
        role: what the compose files say of it; empty where they say nothing.
        image: the name under which its containers were started; ``image_id`` is what that was.
        target: the image in the files with the new ``IMAGE``; ``target_id`` what that is here now.
        running: containers that run; ``containers`` counts the stopped ones, too.
        drain_s: how long a stop may take for running requests, seconds.
        other_settings: what the files and variables of now would change besides the image, by name.
    """

    name: str
    role: str
    image: str
    image_id: str
    contents: Manifest
    target: str
    target_id: str
    target_contents: Manifest
    running: int
    containers: int
    drain_s: int
    other_settings: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return self.image_id != self.target_id


@dataclass(frozen=True)
class Seen:
    """What a plan is made of.

    Attributes:
        services: those with at least one container.
        started_with: the compose files of the running head, where they are others than those given; else empty.
        phase: the head's own words when it is not ready; empty when it is.
        free_bytes: on Docker's disk.
    """

    project: str
    image: str
    services: tuple[Service, ...]
    started_with: str
    phase: str
    free_bytes: int


@dataclass(frozen=True)
class Change:
    """A fact of the image that becomes another one."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        older = self.what in ("ray", "engine_version", "python", "protocol") and _numbers(self.new) < _numbers(self.old)
        return f"{self.what}: {self.old} -> {self.new}" + (" (older)" if older else "")


@dataclass(frozen=True)
class Plan:
    """How the cluster comes to the image.

    Attributes:
        old: the image of the head until now.
        engine: the one in the new image.
        changes: of the head's image; empty where the two images say the same of themselves.
        others: services beside the head, whose containers end with it.
        scale: containers of each of these, which stay as many.
        nodes: how many must have joined at the end.
        needed: whether any container has to be replaced.
    """

    image: str
    old: str
    engine: str
    head: str
    others: tuple[str, ...]
    scale: tuple[tuple[str, int], ...]
    nodes: int
    drain_s: int
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    needed: bool

    def lines(self, timeout_s: float, *, rollback: bool) -> list[str]:
        """The plan for people."""
        if not self.needed:
            return [f"the cluster runs {self.image} already; nothing to do"]
        others = "".join(f", {name}" for name in self.others)
        return [
            f"from {self.old} to {self.image}",
            *(f"changes {change}" for change in self.changes),
            *(f"warning: {warning}" for warning in self.warnings),
            f"1. import the engine once in a container of {self.image}, while the cluster serves",
            f"2. stop {self.head}: no new requests, those that run may take {self.drain_s} s",
            *([f"3. end{others[1:]}: without a head they serve nothing"] if self.others else []),
            f"{len(self.others[:1]) + 3}. write IMAGE to the environment file, start {self.head}{others}",
            f"{len(self.others[:1]) + 4}. wait for {counted(self.nodes, 'node')} and every model, at most {timeout_s:.0f} s"
            + (f"; otherwise bring {self.old} back" if rollback else ""),
        ]


def make(seen: Seen, *, allow_degraded: bool = False, allow_changes: bool = False) -> Plan:
    """Decide.

    Raises:
        UnavailableError: no head runs, or it is not ready.
        ConfigError: the head does not take its image from ``IMAGE``, or more than the image would change.
        VersionMismatchError: nodes that keep their image could not join the new head.
        ResourceError: the disk is nearly full.
    """
    head = next((service for service in seen.services if service.role in HEADS and service.running), None)
    if head is None:
        raise no_head(seen.project)
    if head.target != seen.image:
        raise ConfigError(
            f"the service {head.name!r} has the image {head.target} whatever IMAGE is; write `image: ${{IMAGE}}` there, "
            "or change the file and run docker compose up."
        )
    others = tuple(service for service in seen.services if service is not head and service.running)
    needed = head.changes or any(service.changes for service in others)
    if needed:
        if not allow_changes:
            _check_settings(seen)
        if seen.phase and not allow_degraded:
            raise UnavailableError(f"the cluster is not ready: {seen.phase}; wait for that, or give --allow-degraded.")
        for service in others:
            _check_joins(service, head.target_contents)
        check_disk(seen.free_bytes, SPARE_BYTES)
    return Plan(
        image=seen.image,
        old=head.image,
        engine=head.target_contents.engine,
        head=head.name,
        others=tuple(service.name for service in others),
        scale=tuple((service.name, service.containers) for service in others),
        nodes=head.running + sum(service.running for service in others),
        drain_s=head.drain_s,
        changes=_changes(head.contents, head.target_contents),
        warnings=tuple(_warnings(head, others)),
        needed=needed,
    )


def no_head(project: str) -> UnavailableError:
    """What to say where nothing runs that could be brought to another image."""
    return UnavailableError(
        f"no head of the project {project!r} runs here; name its compose files with --file and its project with --project-name, "
        "or start it: docker compose up."
    )


def check_disk(free_bytes: int, wanted_bytes: int) -> None:
    """Whether there is room on Docker's disk.

    Raises:
        ResourceError: there is not.
    """
    if free_bytes < wanted_bytes:
        raise ResourceError(
            f"Docker's disk has {free_bytes / _GIB:.1f} GiB left, and {wanted_bytes / _GIB:.1f} GiB are wanted; "
            "free some, for example with docker image prune."
        )


def _check_settings(seen: Seen) -> None:
    """What is changed beside the image could not be taken back, and nobody asked for it."""
    different = [f"{service.name} in {', '.join(service.other_settings)}" for service in seen.services if service.other_settings]
    if different:
        files = f" The head was started with {seen.started_with}." if seen.started_with else ""
        raise ConfigError(
            f"the compose files and variables of now would change more than the image: {'; '.join(different)}; give them as they were "
            "(--file, compose/.env, the shell's variables), apply them first with docker compose up, or give --allow-changes; "
            f"a way back then keeps these changes.{files}"
        )


def _check_joins(service: Service, head: Manifest) -> None:
    for key in MUST_BE_EQUAL:
        own, wanted = getattr(service.target_contents, key), getattr(head, key)
        if own != wanted:
            raise VersionMismatchError(
                f"the service {service.name!r} stays on {service.target} with {key} {own}, and the new head has {wanted}; "
                "it could not join. Change its image in the compose files as well, and run docker compose up."
            )


def _changes(old: Manifest, new: Manifest) -> tuple[Change, ...]:
    pairs = ((field.name, str(getattr(old, field.name)), str(getattr(new, field.name))) for field in fields(Manifest))
    return tuple(Change(*pair) for pair in pairs if pair[0] != "schema" and pair[1] != pair[2])


def _warnings(head: Service, others: Sequence[Service]) -> list[str]:
    found = []
    old, new = head.contents, head.target_contents
    if old.engine != new.engine:
        found.append(f"the engine becomes {new.engine}: a model that names {old.engine} waits for a node that has it")
    if old.device != new.device:
        found.append(f"the image is made for {new.device} instead of {old.device}")
    found += [
        f"{service.name} does not follow IMAGE: it "
        + ("comes to what {0} is now" if service.changes else "stays on {0}").format(service.target)
        for service in others
        if service.target != head.target
    ]
    found += [
        f"{counted(service.containers - service.running, 'stopped container')} of {service.name} will be started as well"
        for service in (head, *others)
        if service.containers > service.running
    ]
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
