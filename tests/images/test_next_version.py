"""From one built version to the next on a running cluster, under the tags that releases have."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.test_upgrade import Project, compose_files
from tests.containers import IMAGE, run

pytestmark = [pytest.mark.issue(8), pytest.mark.full]
REPOSITORY = "rscai-test-next"
MANIFEST = "/opt/ray-serve-cai/manifest.json"


@pytest.fixture
def releases(tree: Path) -> Iterator[tuple[str, str]]:
    """The image that is here and one of the next version, built from changed sources, both under their release tags."""
    project = tree / "pyproject.toml"
    version = re.search(r'^version = "(.+)"', project.read_text(), re.MULTILINE)
    assert version is not None
    project.write_text(project.read_text().replace(f'version = "{version[1]}"', 'version = "99.1.0"', 1))
    module = tree / "ray_serve_cai/errors.py"
    module.write_text(module.read_text() + "\nCHANGED = 1\n")
    run("env", "-C", str(tree), "python3", "-m", "images.generate")
    run("docker", "tag", IMAGE, f"{REPOSITORY}:vllm-cpu")
    old = tagged()
    run(str(tree / "images/build.sh"), "vllm-cpu", env=os.environ | {"TAG_PREFIX": f"{REPOSITORY}:"}, timeout=900)
    new = tagged()
    yield old, new
    run(
        "docker", "image", "rm", "--force", *run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).stdout.split()
    )


def tagged() -> str:
    """The exact release tag of what is built now."""
    return run(sys.executable, "-m", "images.tagger", f"{REPOSITORY}:vllm-cpu", "--apply").stdout.split()[0]


def test_a_cluster_goes_to_the_next_version_and_back(releases: tuple[str, str], questions: dict[str, str], tmp_path: Path) -> None:
    old, new = releases
    assert new.startswith(f"{REPOSITORY}:99.1.0-vllm")
    assert old != new
    question = next(iter(questions))
    with Project(compose_files(tmp_path), old) as project:
        project.api.wait_ready()
        for target in (new, old):
            done = project.upgrade(target, "--json")
            assert done.returncode == 0, done.stderr
            assert set(project.containers().values()) == {target}
            wanted = target.partition(":")[2].partition("-")[0]
            for container in project.containers():
                assert json.loads(run("docker", "exec", container, "cat", MANIFEST).stdout)["package"] == wanted
            assert project.api.ask(question) == questions[question]
            assert f"IMAGE={target}\n" in project.env_file.read_text()
