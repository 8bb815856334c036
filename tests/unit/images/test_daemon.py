"""What is asked of Docker, with a client that answers as docker-py does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from images import daemon
from images.daemon import Daemon
from images.errors import DaemonError, ImageError, NoImageError

pytestmark = pytest.mark.issue(7)


class FakeContainer:
    def __init__(self, code: int, start: Exception | None = None, wait: Exception | None = None) -> None:
        self._code, self._start, self._wait = code, start, wait
        self.removed = False

    def start(self) -> None:
        if self._start:
            raise self._start

    def wait(self, timeout: float) -> dict[str, int]:
        if self._wait:
            raise self._wait
        return {"StatusCode": self._code}

    def logs(self, stdout: bool = True, stderr: bool = True) -> bytes:
        return (b"answer" if stdout else b"") + (b"words" if stderr else b"")

    def remove(self, force: bool) -> None:
        self.removed = force


def client(container: FakeContainer | None = None, attrs: dict[str, Any] | None = None) -> Any:
    def get(name: str) -> Any:
        if attrs is None:
            raise ImageNotFound("no such image")
        return SimpleNamespace(attrs=attrs)

    return SimpleNamespace(images=SimpleNamespace(get=get), containers=SimpleNamespace(create=lambda *_, **__: container))


def test_an_image() -> None:
    attrs = {"Id": "sha256:abc", "Created": "2026-11-26T05:14:54Z", "Size": 7, "Config": {"Labels": None}}
    assert Daemon(client(attrs=attrs)).image("it") == daemon.Image("sha256:abc", "2026-11-26T05:14:54Z", 7, {})
    with pytest.raises(NoImageError, match="no image 'it'"):
        Daemon(client()).image("it")


def test_a_look_inside() -> None:
    container = FakeContainer(0)
    assert Daemon(client(container)).probe("it") == "answer"
    assert container.removed


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (FakeContainer(1), "it: the look inside ended with exit code 1: words"),
        (FakeContainer(0, start=APIError("no", explanation="no such file")), "it has no /opt/ray-serve-cai/venv/bin/python3 that starts"),
        (FakeContainer(0, wait=requests.ReadTimeout()), "took more than 120 s"),
    ],
    ids=["it fails", "no Python", "it hangs"],
)
def test_a_look_inside_that_fails(container: FakeContainer, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        Daemon(client(container)).probe("it")
    assert container.removed


def test_tags() -> None:
    given: list[tuple[str, str]] = []
    image = SimpleNamespace(tag=lambda repository, tag: given.append((repository, tag)))
    Daemon(SimpleNamespace(images=SimpleNamespace(get=lambda name: image))).tag("it", "ray-serve-cai", ["a", "b"])  # type: ignore[arg-type]
    assert given == [("ray-serve-cai", "a"), ("ray-serve-cai", "b")]


def registry(*, lines: Sequence[dict[str, Any]] = (), data: object = None) -> Daemon:
    """A Docker whose registry answers a push with lines, and a question for a tag with data or an error."""

    def get_registry_data(name: str) -> Any:
        if isinstance(data, Exception):
            raise data
        return SimpleNamespace(id=data)

    return Daemon(SimpleNamespace(images=SimpleNamespace(push=lambda *_, **__: iter(lines), get_registry_data=get_registry_data)))  # type: ignore[arg-type]


def test_a_push() -> None:
    lines = [{"status": "Pushed"}, {"progressDetail": {}, "aux": {"Tag": "it", "Digest": "sha256:abc", "Size": 7}}]
    assert registry(lines=lines).push("r/o", "it") == "sha256:abc"
    with pytest.raises(DaemonError, match="r/o:it cannot be pushed: denied; docker login"):
        registry(lines=[{"status": "Preparing"}, {"error": "denied"}]).push("r/o", "it")
    with pytest.raises(DaemonError, match="r/o:it was pushed and Docker names no digest for it"):
        registry(lines=[{"status": "Pushed"}]).push("r/o", "it")


def test_a_tag_in_a_registry() -> None:
    assert registry(data="sha256:abc").pushed("r/o:it") == "sha256:abc"
    assert registry(data=NotFound("manifest unknown")).pushed("r/o:it") is None
    with pytest.raises(DaemonError, match="the registry of r/o:it does not answer: certificate signed by unknown authority"):
        registry(data=APIError("no", explanation="certificate signed by unknown authority")).pushed("r/o:it")


@pytest.mark.parametrize(
    ("manifest", "found"),
    [('{"config": {"digest": "sha256:def"}, "layers": []}', "sha256:def"), ('{"manifests": []}', None)],
    ids=["an image", "an index"],
)
def test_what_a_digest_means(manifest: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\n[ \"$*\" = 'buildx imagetools inspect --raw r/o@sha256:abc' ] && echo '{manifest}'\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert registry().id_of("r/o@sha256:abc") == found


@pytest.mark.parametrize(
    ("script", "words"),
    [("#!/bin/sh\necho 'ERROR: denied' >&2\nexit 1\n", "the registry of r/o@sha256:abc does not answer: ERROR: denied"), ("", "no docker command")],
    ids=["denied", "no docker"],
)
def test_what_a_digest_means_cannot_be_known(script: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if script:
        (tmp_path / "docker").write_text(script)
        (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DaemonError, match=words):
        registry().id_of("r/o@sha256:abc")


def test_docker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise DockerException("Connection refused")

    monkeypatch.setattr(docker, "from_env", refuse)
    with pytest.raises(DaemonError, match="Docker does not answer: Connection refused"), daemon.connect():
        pass


def test_the_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(docker, "from_env", lambda: SimpleNamespace(close=lambda: closed.append(True)))
    with daemon.connect():
        pass
    assert closed == [True]
