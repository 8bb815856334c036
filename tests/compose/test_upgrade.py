"""`ray-serve-cai upgrade` on a real cluster under load: to another build, to an image that is refused, to one that does not serve."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import IMAGE, ROOT, Cluster, Load, run, until

pytestmark = [pytest.mark.issue(6), pytest.mark.full]
QUESTION = "What is ray-serve-cai?"
MANIFEST = "/opt/ray-serve-cai/manifest.json"
VLLM = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages/vllm"
NAME = "rscai-upgrade-test"
CHANGES = {
    "b": f"""RUN sed -i 's/"build_id": "[^"]*"/"build_id": "the-next-one"/' {MANIFEST}""",
    "refused": "ENV RSCAI_PORT=none",
    "broken": f"RUN echo 'raise RuntimeError(\"broken on purpose\")' > {VLLM}/model_executor/models/llama.py",
}
"""Tag -> what makes it another image than the tag a."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    user = run("docker", "image", "inspect", "--format", "{{.Config.User}}", IMAGE).stdout.strip()
    run("docker", "tag", IMAGE, f"{NAME}:a")
    for tag, change in CHANGES.items():
        directory = tmp_path_factory.mktemp(tag)
        (directory / "Dockerfile").write_text(f"FROM {NAME}:a\nUSER root\n{change}\nUSER {user}\n")
        run("docker", "build", "--quiet", "--tag", f"{NAME}:{tag}", str(directory))
    yield
    run("docker", "image", "rm", "--force", *(f"{NAME}:{tag}" for tag in ("a", *CHANGES)))


class Project(Cluster):
    """A cluster whose compose files and environment file are copies, so that the tree's own are left alone."""

    def __init__(self, directory: Path, image: str) -> None:
        super().__init__(workers=1, base=str(directory / "cpu.yaml"))
        self.env_file = directory / ".env"
        self.env_file.write_text(f"IMAGE={image}\n")
        del self.env["IMAGE"]

    def upgrade(self, image: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "ray_serve_cai.cli", "upgrade", image, *self.files, *options)
        done = run(*command, check=False, timeout=900, env=self.env | {"PYTHONPATH": os.pathsep.join(sys.path)})
        print(done.stderr, done.stdout)
        return done

    def containers(self) -> dict[str, str]:
        """Id -> image."""
        ids = self.ids("head") + self.ids("worker")
        images = run("docker", "inspect", "--format", "{{.Config.Image}}", *ids).stdout.split()
        return dict(zip(ids, images, strict=True))


def compose_files(parent: Path) -> Path:
    """A directory with copies of the compose files."""
    directory = parent / "compose"
    directory.mkdir()
    for file in (ROOT / "compose").glob("*"):
        if file.suffix in (".yaml", ".env") and file.name != ".env":
            shutil.copy(file, directory)
    return directory


@pytest.fixture(scope="module")
def project(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with Project(compose_files(tmp_path_factory.mktemp("project")), f"{NAME}:a") as started:
        started.api.wait_ready()
        yield started


def test_a_configuration_that_is_refused_touches_nothing(project: Project, questions: dict[str, str]) -> None:
    before, file = project.containers(), project.env_file.read_text()
    with Load(project.api, 2, questions) as load:
        done = project.upgrade(f"{NAME}:refused")
        served = load.done
        until("requests", lambda: load.done > served + 4, 60)
    assert done.returncode == 64
    assert f"{NAME}:refused refuses the configuration of 'head': RSCAI_PORT is 'none'" in done.stderr.splitlines()[-1]
    assert load.failures == []
    assert (project.containers(), project.env_file.read_text()) == (before, file)


def test_an_image_that_does_not_serve_gives_way_to_the_old_one(project: Project, questions: dict[str, str]) -> None:
    before, file = project.containers(), project.env_file.read_text()
    done = project.upgrade(f"{NAME}:broken")
    assert done.returncode == 78
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ray-serve-cai: error: {NAME}:broken does not serve here: ")
    assert "vLLM did not start model 'demo'" in last
    assert " is back; no answer for " in last
    assert sorted(project.containers().values()) == sorted(before.values())
    assert project.env_file.read_text() == file
    assert project.api.is_ready()
    assert project.api.ask(QUESTION) == questions[QUESTION]


def test_an_upgrade_under_load(project: Project, questions: dict[str, str]) -> None:
    """Nothing is cut, and no client waits longer than the command says; the number of workers, and the image, stay."""
    project.compose("up", "--detach", "--no-build", "--scale", "worker=2")
    until("three nodes", lambda: project.api.health()["nodes"]["alive"] == 3, 90)
    until("ready", project.api.is_ready, 60)
    before = project.containers()
    assert "2 workers" not in project.upgrade(f"{NAME}:b", "--dry-run").stdout
    assert project.containers() == before
    with Load(project.api, 4, questions) as load:
        until("requests", lambda: load.done > 8, 60)
        done = project.upgrade(f"{NAME}:b", "--json")
        served = len(load.answered)
        until("requests", lambda: len(load.answered) > served + 8, 60)
    assert done.returncode == 0, done.stderr
    after = project.containers()
    assert (len(after), set(after.values())) == (3, {f"{NAME}:b"})
    assert before.keys().isdisjoint(after)
    built = {json.loads(run("docker", "exec", container, "cat", MANIFEST).stdout)["build_id"] for container in after}
    assert built == {"the-next-one"}
    assert project.api.ask(QUESTION) == questions[QUESTION]
    said = json.loads(done.stdout)
    waited = max(late - early for early, late in zip(load.answered, load.answered[1:], strict=False))
    refused, rejected = (sum(word in failure for failure in load.failures) for word in ("Connect", "503 "))
    print(f"no answer for {said['no_answer_s']} s by the command's probe, {waited:.1f} s for four clients; {said['seen_by_clients']}")
    print(f"{len(load.answered)} answers; {refused} connections refused or closed at once, {rejected} answers of 503, 0 cut")
    assert abs(said["no_answer_s"] - waited) < 15
    assert [failure for failure in load.failures if "cut" in failure or "->" in failure] == []
    project.compose("up", "--detach", "--no-build", "--scale", "worker=2")
    assert project.containers() == after
