"""The `cai` section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_serve_cai.cai import config
from ray_serve_cai.errors import ConfigError

pytestmark = pytest.mark.issue(9)


def write(tmp_path: Path, **cai: Any) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        yaml.safe_dump({"cai": {"runtime": "registry.example.com/a:b", **cai}, "models": [{"source": "demo"}]}, sort_keys=False)
    )
    return file


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    made = config.load(write(tmp_path))
    assert list(made.cai.applications()) == ["ray-serve-head"]
    assert made.serving.models[0].source == "demo"


def test_names_of_all_applications(tmp_path: Path) -> None:
    made = config.load(write(tmp_path, name="m", workers={"gpu": {"count": 2, "gpus": 1}, "big": {"gpus": 8}, "none": {"count": 0}}))
    assert list(made.cai.applications()) == ["m-head", "m-gpu-1", "m-gpu-2", "m-big-1"]


def test_groups_whose_names_look_alike_are_kept_apart(tmp_path: Path) -> None:
    made = config.load(write(tmp_path, name="m", workers={"a": {"count": 11}, "a-1": {"count": 2}}))
    names = list(made.cai.applications())
    assert len(names) == len(set(names)) == 14


@pytest.mark.parametrize(
    ("cai", "words"),
    [
        ({"runtime": None}, "cai.runtime: None"),
        ({"nme": "a"}, "cai.nme: unknown key; did you mean name"),
        ({"head": {"gpu": 1}}, "cai.head.gpu: unknown key; did you mean gpus"),
        ({"workers": {"gpu": {"memory_gb": 4}}}, "cai.workers.gpu.memory_gb: unknown key; did you mean memory"),
        ({"workers": {"gpu": {"count": -1}}}, "cai.workers.gpu.count: -1"),
        ({"name": "My_Models"}, "becomes part of host names"),
        ({"name": "a" * 41}, "at most 40"),
        ({"workers": {"head": {}}}, "and not 'head'"),
        ({"workers": {"GPU": {}}}, "the group 'GPU' becomes part of host names"),
        ({"environment": {"RSCAI_TOKEN": "x"}}, "RSCAI_TOKEN is set by the plan"),
        ({"authentication": "none"}, "cai.authentication: 'none'"),
        ({"script": "launch.py"}, "a path below the project's root with a directory"),
        ({"script": "../x/launch.py"}, "a path below the project's root"),
        ({"shared_memory_gb": 0}, "cai.shared_memory_gb: 0"),
    ],
)
def test_what_cannot_be(tmp_path: Path, cai: dict[str, Any], words: str) -> None:
    file = write(tmp_path, **cai)
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["models:\n- source: demo\n", "- a\n", "cai: yes\nmodels: []\n"])
def test_a_file_without_the_section(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="has no section `cai`"):
        config.load(file)


def test_models_beside_it_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("cai:\n  runtime: r\nmodels:\n- sorce: demo\n")
    with pytest.raises(ConfigError, match="unknown key; did you mean source"):
        config.load(file)


@pytest.mark.parametrize("name", ["RSCAI_MODEL", "RSCAI_PORT", "VLLM_API_KEY", "VLLM_API_KEY_FILE", "RSCAI_TOKEN_FILE", "CDSW_APP_PORT"])
def test_variables_that_are_not_a_files_to_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is set by the plan or the platform"):
        config.load(write(tmp_path, environment={name: "x"}))


def test_a_key_does_not_belong_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set CML_API_KEY or CML_API_KEY_FILE instead") as caught:
        config.load(write(tmp_path, api_key="hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("cai:\n  runtime: r\n  workers:\n    gpu: {count: 1}\n    gpu: {count: 3}\nmodels:\n  - source: demo\n")
    with pytest.raises(ConfigError, match="the key 'gpu' stands there twice"):
        config.load(file)


def test_a_group_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cai\.workers\.gpu: None: write a mapping"):
        config.load(write(tmp_path, workers={"gpu": None}))
