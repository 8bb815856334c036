"""The Applied ML Prototype: its file against the specification's fields, and the script that it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from images import matrix
from ray_serve_cai.cai import CAIClusterManager
from ray_serve_cai.cai.doctor import EDITOR
from tests.fakes.cai.pod import cells

pytestmark = pytest.mark.issue(9)
ROOT = Path(__file__).resolve().parents[3]
FILE = yaml.safe_load((ROOT / ".project-metadata.yaml").read_text())
# https://docs.cloudera.com/machine-learning/cloud/applied-ml-prototypes/topics/ml-amp-project-spec.html, version 1.0:
# field -> type, or the most characters of a text
REQUIRED = {"name": 200, "description": 2048, "author": 64, "specification_version": 16, "prototype_version": 16}
OPTIONAL = {"date": 10, "shared_memory_limit": (int, float), "environment_variables": dict, "runtimes": list, "tasks": list}
VARIABLE = {"default": str, "description": str, "required": bool}
SESSION = {
    "type": str,
    "name": 200,
    "script": str,
    "code": str,
    "kernel": str,
    "cpu": (int, float),
    "memory": (int, float),
    "gpu": int,
    "environment_variables": dict,
}


def fits(value: Any, kind: Any) -> bool:
    return (
        isinstance(value, str) and 0 < len(value) <= kind
        if isinstance(kind, int) and not isinstance(kind, bool)
        else isinstance(value, kind)
    )


def test_its_fields_are_those_of_the_specification() -> None:
    assert REQUIRED.keys() <= FILE.keys() <= REQUIRED.keys() | OPTIONAL.keys()
    assert all(fits(value, (REQUIRED | OPTIONAL)[name]) for name, value in FILE.items())
    for name, variable in FILE["environment_variables"].items():
        assert variable.keys() <= VARIABLE.keys(), name
        assert all(fits(value, VARIABLE[key]) for key, value in variable.items()), name
    for task in FILE["tasks"]:
        assert task["type"] == "run_session"
        assert all(fits(value, SESSION[name]) for name, value in task.items())
        assert (ROOT / task["script"]).is_file()


def test_its_runtime_is_one_of_ours() -> None:
    versions = json.loads((ROOT / "images/versions.json").read_text())
    made = [matrix.runtime(image, versions) for image in versions["images"].values()]
    ours = {(EDITOR, one["ML_RUNTIME_KERNEL"], one["ML_RUNTIME_EDITION"]) for one in made}
    assert {(one["editor"], one["kernel"], one["edition"]) for one in FILE["runtimes"]} <= ours


def test_the_script_asks_for_what_the_form_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {}

    def start(self: CAIClusterManager, **what: Any) -> dict[str, Any]:
        asked.update(what)
        return {"url": "https://ray-serve.ml.example.com"}

    monkeypatch.setattr(CAIClusterManager, "start_cluster", start)
    for name, value in {
        "CDSW_DOMAIN": "ml.example.com",
        "CDSW_APIV2_KEY": "k",
        "CDSW_PROJECT_ID": "p",
        "WORKERS": "3",
        "MODEL": "org/model",
    }.items():
        monkeypatch.setenv(name, value)
    scope: dict[str, Any] = {}
    for cell in cells((ROOT / FILE["tasks"][0]["script"]).read_text()):
        exec(cell, scope)
    assert (asked["num_workers"], asked["num_gpus"], asked["models"]) == (3, 1, [{"source": "org/model"}])
    assert capsys.readouterr().out == "https://ray-serve.ml.example.com/v1\n"
