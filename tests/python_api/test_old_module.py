"""The stable Python API, in the image, with the entrypoint bypassed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.containers import IMAGE, ROOT, run

pytestmark = [pytest.mark.issue(3), pytest.mark.full]
QUESTION = "What is ray-serve-cai?"
SECRET = "hf_" + "s3cret" * 5


@pytest.fixture(scope="module")
def output() -> tuple[str, str]:
    """What the script wrote to stdout and stderr."""
    mount = f"{ROOT}/tests/python_api:/scripts:ro"
    options = ("--rm", "--shm-size", "1g", "--volume", mount, "--entrypoint", "python3")
    done = run("docker", "run", *options, IMAGE, "/scripts/old_module.py", QUESTION, timeout=400)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def seen(output: tuple[str, str]) -> dict[str, Any]:
    return dict(json.loads(output[0].splitlines()[-1]))


def test_initialize(seen: dict[str, Any]) -> None:
    first, again = seen["initialize_ray"], seen["again"]
    assert first["initialized"] is True
    assert (first["mode"], first["nodes"]) == ("local", 1)
    assert again == first | {"mode": "already_initialized"}
    assert {"sglang", "vllm"} <= set(seen["engines"])
    assert seen["before"]["running"] is False


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("bad_engine", ["'vlm'", "did you mean vllm"]),
        ("bad_key", ["dtype", "'int4'"]),
        ("bad_argument", ["max_num_sequences", "did you mean max_num_seqs"]),
        ("bad_path", ["'/no/such/model'"]),
    ],
)
def test_failures_name_the_value(seen: dict[str, Any], call: str, words: list[str]) -> None:
    result = seen[call]
    assert result["started"] is False
    assert [word for word in words if word not in result["message"]] == []


def test_start(seen: dict[str, Any]) -> None:
    started = seen["start_model"]
    expected = {"started": True, "engine": "vllm", "port": 8000, "status": "running", "model": "demo", "ready": True}
    assert expected.items() <= started.items()
    assert isinstance(started["application_name"], str)
    assert started["elapsed_time"] >= 0
    assert seen["wait_for_ready"]["ready"] is True
    assert seen["status"]["running"] is True
    assert seen["status"]["application_name"] == started["application_name"]


def test_http(seen: dict[str, Any], questions: dict[str, str]) -> None:
    status, health = seen["health"]
    assert (status, health["engine"], health["model"]) == (200, "vllm", "demo")
    assert seen["models"][1]["data"][0]["max_model_len"] == 512
    assert seen["chat"][1]["choices"][0]["message"]["content"] == questions[QUESTION]
    assert seen["other"][0] == 404


def test_logs_are_those_of_the_replica_and_its_engine(seen: dict[str, Any]) -> None:
    lines = seen["logs"]
    assert 0 < len(lines) <= 50
    text = "\n".join(lines)
    assert "model demo: ready" in text or "POST /v1/chat/completions" in text or "EngineCore" in text, text


def test_the_token_is_in_no_log_and_no_other_process(seen: dict[str, Any], output: tuple[str, str]) -> None:
    assert seen["secret"]["logs"] == []
    assert seen["secret"]["here"] == []
    assert [line for line in seen["secret"]["processes"] if "ray::ServeRepli" not in line] == []  # the replica and its children
    assert SECRET not in output[0] + output[1]


def test_stop(seen: dict[str, Any]) -> None:
    assert seen["stop_model"]["stopped"] is True
    assert seen["after"]["running"] is False
    assert seen["stop_again"]["stopped"] is True
