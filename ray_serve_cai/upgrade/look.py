"""What a plan is made of, read from Docker without touching the cluster; a throw-away container of the new image answers for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray_serve_cai import logs
from ray_serve_cai.errors import ConfigError, UnavailableError, by_exit_code
from ray_serve_cai.node import discovery, health, manifest
from ray_serve_cai.upgrade import docker, plan
from ray_serve_cai.upgrade.docker import Compose, Container, DockerError
from ray_serve_cai.upgrade.plan import Seen, Service

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """What runs: the project's name, the head's container, and the name of the image that it was started with."""

    project: str
    head: Container

    @property
    def image(self) -> str:
        return self.head.image


def find(compose: Compose, image: str) -> Cluster:
    """The running cluster of these files.

    Raises:
        ConfigError: the files are not valid with this image.
        UnavailableError: no head of them runs.
    """
    files = _config(compose, image)
    roles = nodes(files)
    heads = [service for service, role in roles.items() if role in plan.HEADS]
    head = next((one for one in docker.containers(files["name"]) if one.service in heads and one.running), None)
    if head is None:
        raise plan.no_head(files["name"])
    return Cluster(files["name"], head)


def at(compose: Compose, cluster: Cluster, image: str, say: Say) -> Seen:
    """All that the plan needs; the image is pulled if it is not here.

    Raises:
        RayServeCaiError: the image cannot be had, is none of this project, or refuses the configuration of a service.
    """
    _have(image, cluster, say)
    now, then = (_config(compose, name) for name in (cluster.image, image))
    hashes = compose.hashes(now)
    running = docker.containers(cluster.project)
    services = []
    for name, role in nodes(then).items():
        mine = [one for one in running if one.service == name]
        if mine:
            different = _different(now["services"][name], mine, hashes[name])
            services.append(_service(name, role, mine, then["services"][name]["image"], different))
    used = {str(container.files) for container in running}
    code, ready = health_of(cluster.head)
    return Seen(
        project=cluster.project,
        image=image,
        services=tuple(services),
        started_with=", ".join(sorted(used)) if any(service.other_settings for service in services) else "",
        phase="" if code == 200 else f"{ready['phase']}: {ready['detail']}",
        free_bytes=_free_bytes(cluster.head),
    )


def check_configuration(compose: Compose, image: str, service: str) -> None:
    """Have the image plan for the service's own environment and volumes, as its node would.

    Raises:
        RayServeCaiError: its node would refuse to start; of the type that its exit code says.
    """
    done = compose.attempt(image, "run", "--rm", "--no-deps", "-T", service, "ray-serve-cai", "plan", "--json")
    if done.returncode == 0:
        return
    try:
        said = next(line for line in json.loads(done.stdout)["models"] if line.startswith("error: ")).removeprefix("error: ")
    except (ValueError, KeyError, StopIteration):
        last = docker.last_line(done.stderr)
        said = logs.error_in(last) or last or f"`plan` left with exit code {done.returncode}"
    raise by_exit_code(done.returncode)(f"{image} refuses the configuration of {service!r}: {said}")


def health_of(head: Container) -> tuple[int, dict[str, Any]]:
    """What the head says of its readiness; phase `unreachable` where nothing answers."""
    if head.door is not None:
        with contextlib.suppress(UnavailableError):
            return health.ask("/ready", head.door.port, head.door.host)
    return 0, {"phase": "unreachable", "detail": f"nothing answers on {head.door or 'the head'} yet", "models": []}


def _have(image: str, cluster: Cluster, say: Say) -> None:
    if docker.image_id(image):
        return
    size = int(docker.docker("image", "inspect", "--format", "{{.Size}}", cluster.head.image_id))
    plan.check_disk(_free_bytes(cluster.head), plan.SPARE_BYTES + size)
    say(f"pulling {image}")
    try:
        docker.docker("pull", "--quiet", image)
    except DockerError as error:
        raise UnavailableError(
            f"the image {image} is not here and cannot be pulled ({error}); build it, load it with docker load, "
            "or log in to its registry with docker login."
        ) from error


def _config(compose: Compose, image: str) -> dict[str, Any]:
    try:
        return dict(json.loads(compose(image, "config", "--format", "json")))
    except DockerError as error:
        raise ConfigError(f"the compose files are not valid with IMAGE={image}: {error}") from error


def nodes(files: Mapping[str, Any]) -> dict[str, str]:
    """Services that run nodes, and their roles."""
    found = {}
    for name, service in files["services"].items():
        env = service.get("environment") or {}
        role = (env.get("RSCAI_ROLE") or "").strip().lower()
        if role in ("", "auto") and env.get("RSCAI_HEAD_ADDRESS"):
            role = "worker"
        if role:
            found[name] = role
    return found


def _different(files: Mapping[str, Any], mine: list[Container], wanted: str) -> tuple[str, ...]:
    """What Compose would change although the image stays: variables by name, as their values may be secrets."""
    old = [one for one in mine if one.config_hash != wanted]
    if not old:
        return ()
    env = {name: (value or "").replace("$$", "$") for name, value in (files.get("environment") or {}).items()}
    names = sorted({name for one in old for name, value in env.items() if one.env.get(name, "") != value})
    return tuple(names) or ("settings other than its variables, such as ports and volumes",)


def _service(name: str, role: str, mine: list[Container], target: str, different: tuple[str, ...]) -> Service:
    target_id = docker.image_id(target) or mine[0].image_id
    one = next((one for one in mine if one.image_id != target_id), mine[0])
    return Service(
        name=name,
        role=role,
        image=one.image,
        image_id=one.image_id,
        contents=contents(one.image_id, one.image),
        target=target,
        target_id=target_id,
        target_contents=contents(target_id, target),
        running=sum(each.running for each in mine),
        containers=len(mine),
        drain_s=discovery.drain_s(one.env),
        other_settings=different,
    )


@cache
def contents(identity: str, name: str) -> manifest.Manifest:
    try:
        told = docker.docker("run", "--rm", "--network", "none", "--entrypoint", "cat", identity, str(manifest.PATH))
    except DockerError as error:
        raise ConfigError(f"{name} has no manifest of ray-serve-cai ({error}); use an image of this project.") from error
    return manifest.of_another(told, name)


def _free_bytes(head: Container) -> int:
    """Of the disk that the container's own layer is on, which is Docker's."""
    return int(docker.docker("exec", head.id, "df", "-P", "-B1", "/").splitlines()[-1].split()[3])
