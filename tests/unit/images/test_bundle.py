"""What is in a bundle but for the image; and the script that starts one, with a Docker that is a shell script."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import zstandard

from images import archive, bundle
from images.matrix import ROOT
from tests.unit.images.conftest import FakeDaemon

pytestmark = pytest.mark.issue(8)
NAME = "ray-serve-cai-0.1.0-vllm0.32.0-cpu"
IMAGE = "ray-serve-cai:0.1.0-vllm0.32.0-cpu"
DOCKER = """#!/bin/sh
echo "$*" >>{0}/asked
case "$*" in
  version) exit ${{NO_DOCKER:-0}} ;;
  "image inspect"*) cat {0}/layers 2>/dev/null ;;
  load*) cp {0}/{1}/LAYERS {0}/layers ;;
esac
"""


@pytest.fixture
def made(tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of an image of a few bytes."""

    @contextmanager
    def saving(image: str) -> Iterator[IO[bytes]]:
        assert image == IMAGE
        yield io.BytesIO(b"layers" * 1000)

    monkeypatch.setattr(archive, "saving", saving)
    assert bundle.main(["ray-serve-cai:vllm-cpu", "--into", str(tmp_path)]) == 0
    return tmp_path / f"{NAME}.tar"


@pytest.fixture
def there(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle unpacked, with an up.sh that says what it was told."""
    with tarfile.open(made) as files:
        files.extractall(tmp_path, filter="data")
    root = tmp_path / NAME
    (tmp_path / "docker").write_text(DOCKER.format(tmp_path, NAME))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (root / "compose/up.sh").write_text('#!/bin/sh\necho "$IMAGE|$STOP|$MODEL"\n')
    sums = (root / "SHA256SUMS").read_text().splitlines(keepends=True)
    (root / "SHA256SUMS").write_text("".join(line for line in sums if "up.sh" not in line))
    return root


def start(there: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([there / "start"], env=os.environ | {"MODEL": "demo"} | environment, capture_output=True, text=True, check=False)


def test_it_holds_what_a_start_takes(made: Path, daemon: FakeDaemon) -> None:
    assert daemon.tagged == [("sha256:abc", "ray-serve-cai", ["0.1.0-vllm0.32.0-cpu"])]
    with tarfile.open(made) as files:
        members = {entry.name.removeprefix(f"{NAME}/"): entry for entry in files}
        read = {name: files.extractfile(entry) for name, entry in members.items() if entry.isfile()}
        contents = {name: stream.read() for name, stream in read.items() if stream}
    assert {"start", "image.tar.zst", "IMAGE", "LAYERS", "SHA256SUMS", "LICENSE", "compose/up.sh", "compose/head.yaml", "compose/cluster.env"} <= set(contents)
    assert "configs/local_gpu.yaml" in contents
    assert not any(name.endswith(("/.env", ".pyc")) for name in contents)
    assert {"docs/benchmarks.svg"} <= set(contents)
    assert any(name.startswith("docs/examples/kubernetes/") for name in contents)
    assert contents["IMAGE"].decode() == f"{IMAGE}\n"
    assert json.loads(contents["LAYERS"]) == ["sha256:1", "sha256:2"]
    assert zstandard.ZstdDecompressor().decompressobj().decompress(contents["image.tar.zst"]) == b"layers" * 1000
    assert {entry.mode for entry in members.values()} == {0o755, 0o644}
    assert members["start"].mode == 0o755
    assert contents["compose/cpu.yaml"] == (ROOT / "compose/cpu.yaml").read_bytes()
    assert {entry.uid for entry in members.values()} == {0}


def test_what_was_not_committed_does_not_pass_for_a_release(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def saving(image: str) -> Iterator[IO[bytes]]:
        assert image == f"{IMAGE}-dirty"
        yield io.BytesIO(b"layers")

    monkeypatch.setattr(archive, "saving", saving)
    monkeypatch.setattr("images.revision.build_id_at", lambda commit, image: "another")
    assert bundle.main(["ray-serve-cai:vllm-cpu", "--into", str(tmp_path)]) == 0
    assert [file.name for file in tmp_path.iterdir()] == [f"{NAME}-dirty.tar"]
    assert daemon.tagged == [("sha256:abc", "ray-serve-cai", ["0.1.0-vllm0.32.0-cpu-dirty"])]
    told = capsys.readouterr().err
    assert "the image is none of a release, so its tag is 0.1.0-vllm0.32.0-cpu-dirty: " in told
    assert f"tar -xf {NAME}-dirty.tar; {NAME}-dirty/start" in told


def test_its_checksums_are_those_of_all_its_files(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made) as files:
        files.extractall(tmp_path, filter="data")
    root = tmp_path / NAME
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=root, check=True)
    listed = {line.split("  ", 1)[1] for line in (root / "SHA256SUMS").read_text().splitlines()}
    assert listed == {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()} - {"SHA256SUMS"}


def test_nothing_half_is_left(tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def saving(image: str) -> Iterator[IO[bytes]]:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(archive, "saving", saving)
    assert bundle.main(["ray-serve-cai:vllm-cpu", "--into", str(tmp_path / "into")]) == 73
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert list((tmp_path / "into").iterdir()) == []


def test_the_image_is_loaded_once(there: Path, tmp_path: Path) -> None:
    done = start(there)
    assert (done.returncode, done.stdout) == (0, f"{IMAGE}|docker compose --project-name ray-serve-cai down|demo\n")
    assert "bundle: checking the files\nbundle: loading ray-serve-cai:0.1.0-vllm0.32.0-cpu, " in done.stderr
    assert start(there).stderr == "bundle: checking the files\n"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line for line in asked if line.startswith("load")] == [f"load --quiet --input {there}/image.tar.zst"]


def test_a_damaged_bundle_is_not_loaded(there: Path, tmp_path: Path) -> None:
    (there / "image.tar.zst").write_bytes(b"half")
    done = start(there)
    assert done.returncode == 66
    assert f"ray-serve-cai: error: the bundle {there} is damaged" in done.stderr
    assert "image.tar.zst: FAILED" in done.stderr
    assert "load" not in (tmp_path / "asked").read_text()


def test_a_file_that_was_changed_is_seen_also_when_the_image_is_there(there: Path) -> None:
    assert start(there).returncode == 0
    with (there / "compose/cpu.yaml").open("a") as file:
        file.write("# mine\n")
    done = start(there)
    assert done.returncode == 66
    assert "compose/cpu.yaml: FAILED" in done.stderr


def test_private_files_stay_at_home(tmp_path: Path, daemon: FakeDaemon) -> None:
    private = ROOT / "configs/rscai-test-private.yaml"
    private.write_text("key: secret\n")
    try:
        bundle.lay_out(tmp_path / "laid", IMAGE, ["sha256:1"])
    finally:
        private.unlink()
    assert not (tmp_path / "laid/configs" / private.name).exists()
    assert (tmp_path / "laid/configs/local_cpu.yaml").exists()


def test_without_a_daemon(there: Path) -> None:
    done = start(there, NO_DOCKER="1")
    assert done.returncode == 69
    assert done.stderr.startswith("ray-serve-cai: error: no Docker daemon answers this user")


def test_help(there: Path) -> None:
    done = subprocess.run([there / "start", "--help"], capture_output=True, text=True, check=True)
    assert "MODEL=/path/to/model WORKERS=2 PORT=8080 ./start" in done.stdout
