"""Reading what `docker save` writes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import archive
from images.archive import Entry
from images.errors import DaemonError, ImageError, NoImageError
from tests.images.handmade import directory, file, image, link, old_image, tar

pytestmark = pytest.mark.issue(7)


def paths(entries: Iterator[Entry]) -> list[str]:
    return [entry.path for entry in entries]


def texts(entries: Iterator[Entry]) -> dict[str, bytes]:
    return {entry.path: entry.read() for entry in entries}


@pytest.mark.parametrize("compression", ["", "gz"])
def test_layers_come_in_the_order_of_the_image(compression: str) -> None:
    layers = [[directory("./etc/"), file("./etc/a", b"1")], [file("etc/b")], []]
    saved = archive.read(io.BytesIO(image(*layers, commands=["first", "second", "third"], compression=compression)), paths)
    assert [(layer.command, layer.value) for layer in saved.layers] == [("first", ["etc", "etc/a"]), ("second", ["etc/b"]), ("third", [])]
    assert [layer.digest for layer in saved.layers] == saved.configuration["rootfs"]["diff_ids"]


def test_a_layer_that_an_image_has_twice() -> None:
    same = [file("a", b"1")]
    saved = archive.read(io.BytesIO(image(same, [file("b")], same)), paths)
    assert [layer.value for layer in saved.layers] == [["a"], ["b"], ["a"]]


def test_files_are_read_and_nothing_else_is() -> None:
    saved = archive.read(io.BytesIO(image([file("a", b"text"), link("b", "a"), directory("c")])), texts)
    assert saved.layers[0].value == {"a": b"text", "b": b"", "c": b""}


def test_an_archive_of_an_older_docker() -> None:
    (layer,) = archive.read(io.BytesIO(old_image([file("a")])), paths).layers
    assert (layer.digest, layer.command, layer.value) == ("sha256:0", "", ["a"])


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        image([file("a", b"x" * 100_000)])[:60_000],
        tar(file("manifest.json", b"[]")),
        tar(file("manifest.json", json.dumps([{"Config": "none", "Layers": []}]).encode())),
        tar(file("blobs/sha256/0", b"no tar at all" * 100), file("manifest.json", b"[]")),
    ],
    ids=["empty", "cut short", "no image", "no configuration", "no layer"],
)
def test_what_is_damaged_is_an_error(damaged: bytes) -> None:
    with pytest.raises(ImageError, match="archive"):
        archive.read(io.BytesIO(damaged), paths)


def fake_docker(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = directory / "docker"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def test_saving_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is read to its end, also where the reader stops earlier."""
    (tmp_path / "saved.tar").write_bytes(image([file("a", b"1" * 3_000_000)]))
    fake_docker(tmp_path, f'[ "$*" = "save made:hand" ] && cat {tmp_path}/saved.tar && echo done >{tmp_path}/end', monkeypatch)
    with archive.saving("made:hand") as stream:
        assert stream.read(10)
    assert (tmp_path / "end").read_text() == "done\n"
    with archive.saving("made:hand") as stream:
        assert [layer.value for layer in archive.read(stream, paths).layers] == [["a"]]


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        ("Error response from daemon: reference does not exist", NoImageError, "has no image 'made:hand'"),
        ("Cannot connect to the Docker daemon", DaemonError, "docker save made:hand failed: Cannot connect"),
    ],
)
def test_what_docker_says_is_what_is_told(
    words: str, error: type[ImageError], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker(tmp_path, f"echo '{words}' >&2; exit 1", monkeypatch)
    with pytest.raises(error, match=told), archive.saving("made:hand") as stream:
        archive.read(stream, paths)
    with pytest.raises(error, match=told), archive.saving("made:hand"):
        pass


def test_an_error_of_the_reader_stays_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, f"cat {tmp_path}/docker", monkeypatch)
    with pytest.raises(ImageError, match="cannot be read"), archive.saving("made:hand") as stream:
        archive.read(stream, paths)


def test_no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DaemonError, match="no docker command"), archive.saving("made:hand"):
        pass
