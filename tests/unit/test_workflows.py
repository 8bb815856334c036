"""The workflows of GitHub Actions: their schema, and what the house asks of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
STEPS = sorted(path for path in (ROOT / ".ci/release").iterdir())
pytestmark = pytest.mark.issue(8)


def jobs(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text())["jobs"])


def test_they_pass_their_schema() -> None:
    command = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_sees_faults(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text((ROOT / ".github/workflows/release.yml").read_text().replace("runs-on:", "runs-at:", 1))
    command = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", broken]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_pinned_and_rights_are_few(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+\.\d+\.\d+", step["uses"]), step["uses"]
            assert "${{" not in step.get("run", ""), f"{name}: a value is pasted into a shell; pass it as a variable"
            if step.get("uses", "").startswith("actions/checkout@") and job.get("permissions", {}).get("contents") != "write":
                assert step["with"]["persist-credentials"] is False, f"{name}: the token would lie in the checkout"


def test_each_step_of_a_release_is_a_script_that_anyone_can_run() -> None:
    ran = {step["run"].split()[0] for file in WORKFLOWS for job in jobs(file).values() for step in job["steps"] if "run" in step}
    assert {f".ci/release/{path.name}" for path in STEPS} <= ran


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_runs_other_peoples_code_can_neither_sign_nor_change_the_repository(file: Path) -> None:
    for name, job in jobs(file).items():
        ran = {step["run"].split()[0] for step in job["steps"] if "run" in step}
        if ran & {".ci/release/images", ".ci/release/newest", ".ci/release/try", "bash", "make"}:
            rights = job.get("permissions", {}) | {"contents": "read"}
            assert rights in ({"contents": "read"}, {"contents": "read", "packages": "write"}), name


def test_the_jobs_of_a_release_wait_for_each_other() -> None:
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert {name: job.get("needs") for name, job in release.items()} == {
        "check": None,
        "test": "check",
        "images": "check",
        "package": "check",
        "sign": ["test", "images", "package"],
        "pypi": "sign",
        "publish": "sign",
    }
    assert [name for name, job in release.items() if job.get("permissions", {}).get("id-token") == "write"] == ["sign", "pypi"]
    assert [name for name, job in release.items() if job.get("permissions", {}).get("contents") == "write"] == ["publish"]


def test_all_images_are_released_and_all_engines_tried() -> None:
    versions = json.loads((ROOT / "images/versions.json").read_text())["images"]
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert release["images"]["strategy"]["matrix"]["image"] == list(versions)
    tried = jobs(ROOT / ".github/workflows/newest.yml")["try"]["strategy"]["matrix"]["what"]
    assert tried == ["cpu", *(name for name in versions if name.endswith("-cuda"))]
    assert f"for what in {' '.join(tried)};" in (ROOT / ".ci/release/propose").read_text()
