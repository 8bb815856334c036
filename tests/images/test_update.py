"""A change of our own code is a change of a few megabytes, and equal inputs give equal layers.

A Cloudera AI runtime has the engine image's layers, which test_cai.py sees by their digests, and a package layer of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import archive
from tests.containers import ROOT, run
from tests.images.conftest import PREFIX, inspect

pytestmark = pytest.mark.issue(7)
MOST_BYTES = 5_000_000


@pytest.fixture
def tree(tree: Path) -> Path:
    """With the commits that images are named after."""
    run("git", "clone", "--quiet", "--bare", "--depth", "1", f"file://{ROOT}", str(tree / ".git"))
    run("git", "-C", str(tree), "config", "core.bare", "false")
    return tree


@pytest.fixture
def prefix() -> Iterator[str]:
    yield "rscai-test-update:"
    for name in run("docker", "image", "ls", "--quiet", "rscai-test-update").stdout.split():
        run("docker", "image", "rm", "--force", name, check=False)


def build(tree: Path, prefix: str, name: str) -> str:
    run(str(tree / "images/build.sh"), name, env=os.environ | {"TAG_PREFIX": prefix, "PYTHON": "python3"}, timeout=1500)
    return prefix + name


def layers(image: str) -> dict[str, int]:
    """Bytes of each layer by its digest; the history has the sizes of those that are not empty, in the same order."""
    digests = inspect(image)["RootFS"]["Layers"]
    listed = run("docker", "history", "--no-trunc", "--human=false", "--format", "{{json .}}", image).stdout.splitlines()
    entries = [json.loads(line) for line in reversed(listed)]
    made = [int(entry["Size"]) for entry in entries if not _only_configuration(entry["CreatedBy"])]
    assert len(made) == len(digests), (made, digests)
    return dict(zip(digests, made, strict=True))


def _only_configuration(instruction: str) -> bool:
    words = ("ENV", "LABEL", "ARG", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD", "HEALTHCHECK", "SHELL")
    return instruction.split(" ", 1)[0] in words


def test_a_changed_line_is_a_small_update(engine_image: str, tree: Path, prefix: str) -> None:
    name = engine_image.removeprefix(PREFIX)
    before = layers(build(tree, prefix, name))
    module = tree / "ray_serve_cai/errors.py"
    module.write_text(module.read_text() + "\nCHANGED = 1\n")
    after = layers(build(tree, prefix, name))
    new = after.keys() - before.keys()
    assert new, "a changed line changes the image"
    assert sum(after[digest] for digest in new) <= MOST_BYTES


def own_files(image: str) -> list[dict[str, object]]:
    """All that is in the last two layers, the bill of materials' and the package's, with times, rights and contents."""

    def summarise(entries: Iterator[archive.Entry]) -> dict[str, object]:
        found: dict[str, object] = {}
        for entry in entries:
            info = entry.info
            ours = "/site-packages/" not in entry.path or "/site-packages/ray_serve_cai" in entry.path
            content = hashlib.sha256(entry.read()).hexdigest() if ours and info.isreg() else info.linkname
            found[entry.path] = (info.type, info.mode, info.mtime, info.uid, info.gid, info.size, content)
        return found

    with archive.saving(image) as stream:
        return [layer.value for layer in archive.read(stream, summarise).layers[-2:]]


@pytest.mark.full
def test_equal_inputs_give_equal_layers(engine_image: str, tree: Path, prefix: str) -> None:
    """The package's layers are built from nothing a second time, from files with other times.

    Files are compared rather than digests: Docker's overlay2 lists a layer in one of two orders, by whether it knows the layer below
    from this build or from one before.
    """
    name = engine_image.removeprefix(PREFIX)
    first = build(tree, prefix, name)
    below, before = list(layers(first))[:-2], own_files(first)
    for file in (tree / "ray_serve_cai").rglob("*.py"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    bake = tree / "images/docker-bake.hcl"
    again = 'dockerfile = "images/Dockerfile"\n  no-cache-filter = ["package", "bill", "assembled", "final"]'
    bake.write_text(bake.read_text().replace('dockerfile = "images/Dockerfile"', again))
    second = build(tree, prefix, name)
    assert list(layers(second))[:-2] == below
    assert own_files(second) == before
