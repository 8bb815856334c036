"""Planted secrets: in nothing that a node, its engine or its tools write or show."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.containers import IMAGE, SGLANG, Node, run

pytestmark = pytest.mark.issue(6)
ENGINE_KEY = "sk-planted-in-the-configuration-0123456789"
PLANTED = {"RSCAI_TOKEN": "plantedtoken0123456789", "HF_TOKEN": "hf_plantedhubtoken0123456789", "VLLM_API_KEY": "sk-planted-key-0123456789"}
SEARCHED = ("/tmp", "/var/lib/ray-serve-cai", "/var/log", "/dev/shm", "/home")
KEPT = {"/tmp/ray-serve-cai/ray-token": PLANTED["RSCAI_TOKEN"]}
"""The one file that must hold one: Ray reads its token from there; for this user alone."""
COMMANDS = (
    ("ray-serve-cai", "plan"),
    ("ray-serve-cai", "plan", "--json"),
    ("ray-serve-cai", "doctor"),
    ("ray-serve-cai", "doctor", "--json"),
    ("ray-serve-cai", "health", "--json"),
    ("ray-serve-cai", "status", "--json"),
    ("ray-serve-cai", "engines", "--json"),
    ("ps", "-eo", "args="),
)


def nowhere(text: str, where: str) -> None:
    found = [name for name, secret in PLANTED.items() if secret in text]
    assert found == [], f"{found} in {where}"


@pytest.mark.full
@pytest.mark.parametrize("image", [pytest.param(IMAGE, id="vllm"), pytest.param(SGLANG, id="sglang")])
def test_a_key_among_the_engines_arguments(image: str) -> None:
    """It protects the model, and only the configuration that it stands in shows it."""
    with Node(image, env={"RSCAI_ENGINE_ARGS": json.dumps({"api_key": ENGINE_KEY}), "RSCAI_LOG_LEVEL": "debug"}, shm_size="1g") as node:
        node.api.wait_ready()
        assert node.api.get("/v1/models").status_code == 401
        authorized = httpx.get(f"{node.api.url}/v1/models", headers={"Authorization": f"Bearer {ENGINE_KEY}"}, timeout=30)
        assert authorized.status_code == 200
        assert ENGINE_KEY not in node.logs()
        for command in COMMANDS:
            assert ENGINE_KEY not in node.exec(*command, check=False).stdout, command
        assert node.exec("grep", "-rlsaF", "--", ENGINE_KEY, *SEARCHED, check=False).stdout == ""


@pytest.fixture(scope="module", params=[pytest.param(IMAGE, id="vllm"), pytest.param(SGLANG, id="sglang", marks=pytest.mark.full)])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(request.param, env=PLANTED | {"RSCAI_LOG_LEVEL": "debug"}, shm_size="1g") as started:
        started.api.wait_ready()
        yield started


def test_not_in_logs_processes_or_answers(node: Node) -> None:
    nowhere(node.logs(), "the log")
    for command in COMMANDS:
        nowhere(node.exec(*command, check=False).stdout, " ".join(command))
    for path in ("/", "/health", "/ready", "/v1/models", "/metrics", "/server_info", "/cluster"):
        nowhere(node.api.get(path).text, path)


def test_not_in_files(node: Node) -> None:
    """Whatever Ray, the engine and the launcher have written, and for how many eyes."""
    for name, secret in PLANTED.items():
        listed = node.exec("grep", "-rlsaF", "--", secret, *SEARCHED, check=False).stdout.splitlines()
        assert set(listed) == {file for file, kept in KEPT.items() if kept == secret}, f"{name} in {listed}"
    for file in KEPT:
        assert node.exec("stat", "--format", "%a", file).stdout.strip() == "600"


@pytest.mark.full
@pytest.mark.parametrize(
    "wrong", [{"RSCAI_ENGINE_ARGS": '{"max_model_len": 999999999}'}, {"RSCAI_MODEL": "/nowhere"}, {"RSCAI_PORT": "x"}], ids=repr
)
@pytest.mark.parametrize("traceback", ["0", "1"])
def test_not_in_what_a_node_says_when_it_fails(wrong: dict[str, str], traceback: str) -> None:
    with Node(env=PLANTED | wrong | {"RSCAI_TRACEBACK": traceback}, shm_size="1g") as broken:
        assert broken.wait_exit(240) != 0
        nowhere(broken.logs(), "the log of a node that failed")
    for command in (("ray-serve-cai", "doctor"), ("ray-serve-cai", "plan")):
        given = [word for name, value in (PLANTED | wrong).items() for word in ("-e", f"{name}={value}")]
        done = run("docker", "run", "--rm", *given, IMAGE, *command, check=False)
        nowhere(done.stdout + done.stderr, " ".join(command))
