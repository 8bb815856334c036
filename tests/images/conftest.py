"""The images that are tested: --images takes images and groups of images/docker-bake.hcl, and one that is not here is an error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from images.matrix import names
from images.plan import expand
from tests.containers import ROOT, run

PREFIX = os.environ.get("TAG_PREFIX", "ray-serve-cai:")
VERSIONS: dict[str, Any] = json.loads((ROOT / "images/versions.json").read_text())
KINDS: dict[str, Callable[[str], bool]] = {
    "image": lambda name: True,
    "engine_image": lambda name: not name.endswith("-cai"),
    "cuda_image": lambda name: "-cuda" in name,
    "cai_image": lambda name: name.endswith("-cai"),
}
"""Fixtures, and which of the images that were asked for they stand for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for a kind of image each one that was asked for."""
    wanted = expand(metafunc.config.getoption("--images"), names(VERSIONS))
    for fixture, belongs in KINDS.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [PREFIX + name for name in wanted if belongs(name)], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of a kind of image that was not asked for are left out rather than skipped."""
    here = Path(__file__).parent
    left_out = [item for item in items if here in item.path.parents and "NOTSET" in item.name]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Inside:
    """A container of an image that sleeps, and commands in it."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.id = run("docker", "run", "--detach", "--label", "rscai-test", "--entrypoint", "sleep", image, "infinity").stdout.strip()

    def __call__(self, *command: str, user: str = "", check: bool = True, timeout: float = 180) -> str:
        options = ("--user", user) if user else ()
        done = run("docker", "exec", *options, self.id, *command, check=check, timeout=timeout)
        return done.stdout if check else done.stdout + done.stderr


@pytest.fixture(scope="session")
def containers() -> Iterator[dict[str, Inside]]:
    """One container for each image that a test has asked for."""
    running: dict[str, Inside] = {}
    yield running
    for container in running.values():
        run("docker", "rm", "--force", "--volumes", container.id)


@pytest.fixture
def inside(request: pytest.FixtureRequest, containers: dict[str, Inside]) -> Inside:
    """The container of the image under test."""
    image = _under_test(request)
    if image not in containers:
        containers[image] = Inside(image)
    return containers[image]


@pytest.fixture
def inspected(request: pytest.FixtureRequest) -> dict[str, Any]:
    """`docker image inspect` of the image under test."""
    return inspect(_under_test(request))


def inspect(image: str) -> dict[str, Any]:
    """`docker image inspect`; an image that is not here is an error with the command that builds it."""
    done = run("docker", "image", "inspect", image, check=False)
    assert done.returncode == 0, f"{image} is not here; build it: images/build.sh {image.removeprefix(PREFIX)}"
    return dict(json.loads(done.stdout)[0])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what images are built from, to be changed or broken."""
    for name in ("images", "ray_serve_cai", "pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path


def _under_test(request: pytest.FixtureRequest) -> str:
    (image,) = (request.getfixturevalue(name) for name in KINDS if name in request.fixturenames)
    return str(image)
