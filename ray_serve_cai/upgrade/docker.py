"""Docker and Compose by their command lines, with typed errors and typed containers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_serve_cai.errors import RayServeCaiError, UnavailableError, UsageError, one_line
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.environment import integer
from ray_serve_cai.node.ports import Ports

_LABEL = "com.docker.compose."
_NO_DAEMON = ("Cannot connect to the Docker daemon", "permission denied while trying to connect")
_EVERYWHERE = ("", "0.0.0.0", "::")


class DockerError(RayServeCaiError):
    """A command of Docker failed; the message ends with its own last line."""


@dataclass(frozen=True)
class Container:
    """One container of a Compose project, of ``docker inspect``.

    Attributes:
        image: the name it was started with; ``image_id`` is what that was.
        config_hash: what Compose compares to see whether it must be replaced.
        files: the compose files it was started with.
        restart_policy: as ``docker update --restart`` takes it.
        door: where its front door is for programs on this machine, if it has one.
    """

    id: str
    service: str
    image: str
    image_id: str
    env: Mapping[str, str]
    config_hash: str
    files: str
    status: str
    restart_policy: str
    exit_code: int
    door: Address | None

    @property
    def running(self) -> bool:
        return self.status in ("running", "restarting")


def docker(*words: str, env: Mapping[str, str] | None = None, given: str = "") -> str:
    """What a command prints.

    Raises:
        UnavailableError: there is no Docker, or its daemon does not answer.
        DockerError: it failed.
    """
    done = attempt(*words, env=env, given=given)
    if done.returncode:
        raise DockerError(f"docker {' '.join(words[:4])} ... failed: {last_line(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def attempt(*words: str, env: Mapping[str, str] | None = None, given: str = "") -> subprocess.CompletedProcess[str]:
    """A command whose failure its caller judges; ``given`` is its standard input.

    Raises:
        UnavailableError: there is no Docker, or its daemon does not answer.
    """
    try:
        done = subprocess.run(("docker", *words), input=given, capture_output=True, text=True, env=env, check=False)
    except FileNotFoundError:
        raise UnavailableError("there is no `docker` command here; run this on the machine that runs the containers.") from None
    if done.returncode and any(said in done.stderr for said in _NO_DAEMON):
        raise UnavailableError(f"no Docker daemon answers this user: {last_line(done.stderr)}; start it, or join the group docker.")
    if done.returncode and "is not a docker command" in done.stderr:
        raise UnavailableError("there is no `docker compose` here; install Docker's plugin Compose v2.")
    return done


def last_line(text: str) -> str:
    """The last line that says something, in bearable length."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(ValueError(lines[-1])) if lines else ""


def image_id(name: str) -> str | None:
    """Which image this is, if it is here."""
    done = attempt("image", "inspect", "--format", "{{.Id}}", name)
    return done.stdout.strip() if done.returncode == 0 else None


def containers(project: str) -> list[Container]:
    """All containers of a project, running or not; those of ``docker compose run`` are none of them."""
    mine = ("--filter", f"label={_LABEL}project={project}", "--filter", f"label={_LABEL}oneoff=False")
    ids = docker("ps", "--all", "--quiet", "--no-trunc", *mine).split()
    done = attempt("inspect", *ids) if ids else None  # one that went meanwhile makes it fail, and leaves the others
    return [of_inspection(found) for found in json.loads(done.stdout or "[]")] if done else []


def of_inspection(found: Mapping[str, Any]) -> Container:
    """A container from what ``docker inspect`` says of it."""
    config, labels = found["Config"], found["Config"]["Labels"]
    env = dict(line.partition("=")[::2] for line in config["Env"] or ())
    return Container(
        id=found["Id"],
        service=labels[f"{_LABEL}service"],
        image=config["Image"],
        image_id=found["Image"],
        env=env,
        config_hash=labels.get(f"{_LABEL}config-hash", ""),
        files=labels.get(f"{_LABEL}project.config_files", ""),
        status=found["State"]["Status"],
        restart_policy=_policy(found["HostConfig"]["RestartPolicy"]),
        exit_code=found["State"]["ExitCode"],
        door=_door(found, env),
    )


def _policy(policy: Mapping[str, Any]) -> str:
    most = policy.get("MaximumRetryCount")
    return f"{policy['Name']}:{most}" if most else policy["Name"] or "no"


def _door(found: Mapping[str, Any], env: Mapping[str, str]) -> Address | None:
    port = integer(env, "RSCAI_PORT", low=1, high=65535) or Ports.front_door
    if found["HostConfig"]["NetworkMode"] == "host":
        host = env.get("RSCAI_HOST", "")
        return Address("127.0.0.1" if host in _EVERYWHERE else host, port)
    network = found["NetworkSettings"]
    published = (network.get("Ports") or {}).get(f"{port}/tcp")
    if published:
        host = published[0]["HostIp"]
        return Address("127.0.0.1" if host in _EVERYWHERE else host, int(published[0]["HostPort"]))
    ip = next((one["IPAddress"] for one in network.get("Networks", {}).values() if one["IPAddress"]), None)
    return Address(ip, port) if ip else None


def processes(container: str) -> str:
    """The command lines of a container's processes, each behind its number; nothing where it does not run."""
    return attempt("top", container, "-eo", "pid,args").stdout


def end(containers: Sequence[str]) -> None:
    """Kill these; some may have ended by themselves."""
    if containers:
        attempt("kill", *containers)


class Compose:
    """``docker compose`` for one project, always told which image ``IMAGE`` is.

    Args:
        files: compose files; none leaves the choice to Compose and ``COMPOSE_FILE``.
        project: its name; None leaves that to Compose.
    """

    def __init__(self, files: Sequence[str], project: str | None) -> None:
        for file in files:
            if not os.path.exists(file):
                raise UsageError(f"there is no compose file {file!r} here; name it with --file, or set COMPOSE_FILE.")
        words = [word for file in files for word in ("--file", file)]
        self._words = ("compose", *words, *(("--project-name", project) if project else ()))

    def __call__(self, image: str, *words: str) -> str:
        """What a command prints.

        Raises:
            DockerError: it failed.
        """
        return docker(*self._words, *words, env=os.environ | {"IMAGE": image})

    def hashes(self, resolved: Mapping[str, Any]) -> dict[str, str]:
        """Service -> what Compose would label its containers with, of the files as ``config`` shows them.

        ``up`` makes the hash of what it has resolved, and ``config --hash`` of what it has read, so that it is given the former to read
        (Compose 2.26).
        """
        words = ("--file", "-", "--project-name", resolved["name"], "config", "--hash", "*")
        return dict(line.split()[:2] for line in docker("compose", *words, given=json.dumps(resolved)).splitlines())

    def attempt(self, image: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command whose failure its caller judges."""
        return attempt(*self._words, *words, env=os.environ | {"IMAGE": image})
