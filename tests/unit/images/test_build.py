"""The one place with effects: what is asked of a Docker that is a shell script, and what of it reaches the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from images import build, buildkit
from images.resolve import pip_settings
from images.surroundings import PROXIES
from images.wheelhouse import digests, packages

pytestmark = pytest.mark.issue(7)
LOGS = Path(__file__).parent / "logs"
DOCKER = """#!/bin/sh
echo "$*" >>{0}/asked
case "$*" in "buildx bake"*) echo "network $NETWORK" >>{0}/asked; echo "proxy $https_proxy" >>{0}/asked ;; esac
case "$*" in
  "context inspect"*) echo "$ENDPOINT" ;;
  "info "*) echo / ;;
  "image inspect --format {{{{.Size}}}}"*) echo 2090000000 ;;
  "image inspect"*) echo sha256:1 ;;
  "buildx bake"*) cat "$LOG"; exit "$CODE" ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Builds with a Docker whose bake prints a recorded log; what it was asked stands in ``asked``."""
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "TAG_PREFIX", "PIP_INDEX_URL", "PIP_FIND_LINKS", "WHEELHOUSE", "DEBIAN_MIRROR", "BASE_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(buildkit, "LOG", tmp_path / "image.log")
    (tmp_path / "docker").write_text(DOCKER.format(tmp_path))
    (tmp_path / "docker").chmod(0o755)

    def run(*targets: str, log: str = "built.txt", code: int = 0, endpoint: str = "unix:///var/run/docker.sock") -> int:
        monkeypatch.setenv("LOG", str(LOGS / log))
        monkeypatch.setenv("CODE", str(code))
        monkeypatch.setenv("ENDPOINT", endpoint)
        monkeypatch.setattr(sys, "argv", ["build.sh", *targets])
        return build.main()

    return run


def asked(tmp_path: Path, words: str) -> list[str]:
    return [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith(words)]


def test_images_are_built_and_weighed(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cpu", "cuda") == 0
    assert asked(tmp_path, "buildx") == [
        f"buildx bake --progress plain --file images/docker-bake.hcl {images}"
        for images in ("vllm-cpu sglang-cpu", "vllm-cuda", "sglang-cuda")
    ]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "image: building vllm-cpu sglang-cpu (layers that did not change are kept)"
    assert [line.partition(", built in")[0] for line in said if "built in" in line] == [
        f"image: ray-serve-cai:{name}, 2090 MB" for name in ("vllm-cpu", "sglang-cpu", "vllm-cuda", "sglang-cuda")
    ]
    assert (tmp_path / "image.log").read_text() == (LOGS / "built.txt").read_text() * 3


def test_this_machines_index_and_wheels_are_used(run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert pip_settings()["UV_DEFAULT_INDEX"] == "https://index/simple"
    assert run("vllm-cpu") == 0
    (command,) = asked(tmp_path, "buildx")
    assert "id=pip,src=/" in command
    assert "id=uv,src=/" in command
    assert command.endswith(f"--set vllm-cpu.contexts.wheels={tmp_path} --set vllm-cpu.args.EXTRA_INDEX_URL= vllm-cpu")


def test_with_a_wheelhouse_nothing_is_asked_of_a_network(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house = tmp_path / "house"
    monkeypatch.setenv("WHEELHOUSE", str(house))
    assert run("vllm-cpu") == 66
    assert f"WHEELHOUSE is '{house}', which holds no Debian packages" in capsys.readouterr().err
    (house / "debs").mkdir(parents=True)
    (house / "debs/Packages").touch()
    for directory, digest in digests("vllm-cpu").items():
        (house / directory).mkdir(parents=True)
        (house / directory / "COMPLETE").write_text(digest)
    (house / "BASE").write_text(f"debian:13\nsha256:2\n{packages(house)}\n")
    assert run("vllm-cpu") == 78
    assert "are for the base image debian:13 of its base.tar, not for the debian:bookworm-slim" in capsys.readouterr().err
    (house / "BASE").write_text(f"debian:bookworm-slim\nsha256:1\n{packages(house)}\n")
    assert run("vllm-cpu") == 0
    (command,) = asked(tmp_path, "buildx")
    for context, place in (("wheels", "wheels/vllm-cpu"), ("tool-wheels", "tool-wheels"), ("debs", "debs")):
        assert f"--set vllm-cpu.contexts.{context}={house / place} " in command
    assert asked(tmp_path, "network") == ["network none"]
    monkeypatch.delenv("WHEELHOUSE")
    assert run("vllm-cpu") == 0
    assert asked(tmp_path, "network")[-1] == "network default"


def test_a_proxy_is_passed_on_by_name(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://u:hunter2@proxy:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:3128")
    assert run("vllm-cpu") == 0
    (command,) = asked(tmp_path, "buildx")
    assert command.endswith(" --set vllm-cpu.args.https_proxy --set vllm-cpu.args.HTTPS_PROXY vllm-cpu")
    assert asked(tmp_path, "proxy") == ["proxy http://u:hunter2@proxy:3128"]
    said = capsys.readouterr().err
    assert "image: http_proxy is a proxy at localhost" in said
    assert "hunter2" not in said


def test_a_failure_is_one_line_and_the_log_stays(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vllm-cpu", log="versions.log", code=1) == 78
    said = capsys.readouterr().err.splitlines()
    error = "ray-serve-cai: error: vllm-cpu: ray 2.60.0 is installed and versions.json pins 2.59.0; run: make locks (log: "
    assert [line for line in said if "error" in line] == [f"{error}{os.path.relpath(tmp_path / 'image.log', build.ROOT)})"]
    assert (tmp_path / "image.log").read_text() == (LOGS / "versions.log").read_text()


def test_a_password_of_a_mirror_is_in_no_log(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vllm-cpu", log="apt-forbidden.log", code=1) == 69
    said = capsys.readouterr().err
    assert "does not answer: https://172.17.0.1:37525/debian/dists/bookworm/InRelease: 401 Unauthorized" in said
    assert "hunter2" in (LOGS / "apt-forbidden.log").read_text()
    assert "hunter2" not in said + (tmp_path / "image.log").read_text()


def test_after_a_failure_nothing_else_is_built(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("all", log="disk.log", code=1) == 74
    assert len(asked(tmp_path, "buildx")) == 1


@pytest.mark.parametrize(("endpoint", "code"), [("unix:///var/run/docker.sock", 74), ("ssh://elsewhere", 0), ("tcp://10.0.0.1:2376", 0)])
def test_only_this_machines_disk_is_looked_at(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, endpoint: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("images.plan.AGAIN_GB", 10**6)
    assert run("vllm-cpu", endpoint=endpoint) == code
    assert ("/ has" in capsys.readouterr().err) == bool(code)


def test_without_docker(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert run() == 69
    assert "there is no docker command here" in capsys.readouterr().err


def test_an_unknown_target(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vllm-gpu") == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ray-serve-cai: error: there is no image 'vllm-gpu'; use vllm-cpu, sglang-cpu")


def test_a_wrong_option(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--nope") == 64
    assert capsys.readouterr().err == "ray-serve-cai: error: unrecognized arguments: --nope; see --help.\n"


def test_names_are_listed_and_nothing_is_built(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list", "cai", "vllm-cpu") == 0
    assert capsys.readouterr().out.split() == ["vllm-cpu-cai", "sglang-cpu-cai", "vllm-cuda-cai", "sglang-cuda-cai", "vllm-cpu"]
    assert not (tmp_path / "asked").exists()


def test_an_interruption(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build", interrupted)
    assert run() == 130
    assert capsys.readouterr().err.startswith("ray-serve-cai: error: interrupted; images that were not done keep the tags they had")
