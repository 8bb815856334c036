"""What is asked of Docker: an image's configuration, a look inside, and tags. The only place of these effects but `docker save`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from images.errors import DaemonError, ImageError, NoImageError
from images.markdown import shortened

PYTHON = "/opt/ray-serve-cai/venv/bin/python3"
PROBE = Path(__file__).with_name("probe.py")
PROBE_S = 120


@dataclass(frozen=True)
class Image:
    """An image as Docker has it: ``created`` is RFC 3339, ``size`` is in bytes, uncompressed."""

    id: str
    created: str
    size: int
    labels: Mapping[str, str]


class Daemon:
    """A Docker engine."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    def image(self, name: str) -> Image:
        """Docker's own description of an image.

        Raises:
            NoImageError: Docker does not have it.
        """
        try:
            found = self._client.images.get(name).attrs
        except ImageNotFound as error:
            raise NoImageError(f"Docker has no image {name!r}; build it with images/build.sh, or pull it.") from error
        return Image(found["Id"], found["Created"], found["Size"], found["Config"].get("Labels") or {})

    def layers(self, name: str) -> list[str]:
        """The digests of an image's layers, uncompressed, base first: the same wherever the image is."""
        return list(self._client.images.get(name).attrs["RootFS"]["Layers"])

    def probe(self, name: str) -> str:
        """What images/probe.py prints in a container of the image, which has no network and changes nothing.

        Raises:
            ImageError: the probe cannot run there, or fails.
        """
        container = self._client.containers.create(
            name, command=[], entrypoint=[PYTHON, "-I", "-c", PROBE.read_text()], network_mode="none", read_only=True
        )
        try:
            container.start()
            code = container.wait(timeout=PROBE_S)["StatusCode"]
            if code:
                words = shortened(container.logs(stdout=False).decode(errors="replace"), 400)
                raise ImageError(f"{name}: the look inside ended with exit code {code}: {words}")
            return container.logs(stderr=False).decode()
        except APIError as error:
            why = shortened(str(error.explanation), 200)
            raise ImageError(f"{name} has no {PYTHON} that starts ({why}); use an image of this project.") from error
        except requests.RequestException as error:
            raise ImageError(f"{name}: the look inside took more than {PROBE_S} s; try again on a machine with less load.") from error
        finally:
            container.remove(force=True)

    def tag(self, name: str, repository: str, tags: Sequence[str]) -> None:
        """Give an image tags in a repository."""
        image = self._client.images.get(name)
        for tag in tags:
            image.tag(repository, tag)

    def pushed(self, name: str) -> str | None:
        """The digest that a tag has in its registry; None where it has none.

        Raises:
            DaemonError: the registry refuses, or does not answer.
        """
        try:
            return str(self._client.images.get_registry_data(name).id)
        except NotFound:
            return None
        except APIError as error:
            raise DaemonError(f"the registry of {name} does not answer: {shortened(str(error.explanation), 300)}; docker login?") from error

    def id_of(self, subject: str) -> str | None:
        """Docker's id for what a digest, REPOSITORY@DIGEST, means in its registry; None where that is no single image.

        An image's id is the digest of its configuration, wherever it was built and however its layers were compressed.

        Raises:
            DaemonError: the registry refuses, or does not answer, or there is no docker command.
        """
        command = ["docker", "buildx", "imagetools", "inspect", "--raw", subject]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise DaemonError("there is no docker command on the PATH; install the Docker client, with buildx.") from error
        if done.returncode:
            raise DaemonError(f"the registry of {subject} does not answer: {shortened(done.stderr, 300)}; docker login?")
        config = json.loads(done.stdout).get("config")
        return str(config["digest"]) if config else None

    def push(self, repository: str, tag: str) -> str:
        """Push one tag; its digest.

        Raises:
            DaemonError: the registry refuses, or does not answer, or Docker names no digest.
        """
        digest = ""
        for line in self._client.images.push(repository, tag, stream=True, decode=True):
            if "error" in line:
                raise DaemonError(f"{repository}:{tag} cannot be pushed: {shortened(line['error'], 300)}; docker login?")
            digest = line.get("aux", {}).get("Digest", digest)
        if not digest:
            raise DaemonError(f"{repository}:{tag} was pushed and Docker names no digest for it; push it again.")
        return digest


@contextmanager
def connect() -> Iterator[Daemon]:
    """The Docker engine that the environment names.

    Raises:
        DaemonError: it does not answer, or not as it should.
    """
    try:
        client = docker.from_env()
        try:
            yield Daemon(client)
        finally:
            client.close()
    except (DockerException, requests.RequestException) as error:
        raise DaemonError(f"Docker does not answer: {shortened(str(error), 300)}; start it, or set DOCKER_HOST.") from error
