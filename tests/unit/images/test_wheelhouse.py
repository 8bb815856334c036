"""What a wheelhouse must hold, and what is asked of Docker to fill one."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from images import buildkit, wheelhouse
from images.build_errors import BuildError
from images.matrix import IMAGES

pytestmark = pytest.mark.issue(8)
DOCKER = """#!/bin/sh
echo "$*" >>{0}/asked
case "$*" in
  "image inspect --format {{{{json .RootFS.Layers}}}}"*) echo '["sha256:1"]' ;;
  "save --output "*) echo base >"$3" ;;
  "buildx bake"*)
    for target; do :; done
    echo "$target" >>{0}/collected
    [ "$target" != "$BROKEN" ] || {{ echo half >"$COLLECTED/half.whl"; echo "ERROR: no space left on device"; exit 1; }}
    case $target in
      collected-debs) echo >"$COLLECTED/Packages" ;;
      collected-tool-wheels) cp {0}/digest-tool-wheels "$COLLECTED/COMPLETE" ;;
      *) cp {0}/digest-$target "$COLLECTED/COMPLETE"; echo torch >"$COLLECTED/torch.whl"; echo $target >"$COLLECTED/own.whl" ;;
    esac ;;
esac
"""


@pytest.fixture
def collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Collects into ``house`` with a Docker that is a shell script; what it was asked stands in ``asked``."""
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "BASE_IMAGE", "PIP_INDEX_URL", "PIP_FIND_LINKS", "DEBIAN_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("WHEELHOUSE", "/none")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(buildkit, "LOG", tmp_path / "image.log")
    for image in ("vllm-cpu", "sglang-cpu"):
        for directory, digest in wheelhouse.digests(image).items():
            name = directory.replace("wheels/", "collected-")
            (tmp_path / f"digest-{name}").write_text(digest + "\n")
    (tmp_path / "docker").write_text(DOCKER.format(tmp_path))
    (tmp_path / "docker").chmod(0o755)

    def collect(*targets: str, broken: str = "") -> int:
        monkeypatch.setenv("BROKEN", broken)
        (tmp_path / "collected").unlink(missing_ok=True)
        monkeypatch.setattr(sys, "argv", ["wheelhouse", "--into", str(tmp_path / "house"), *targets])
        return wheelhouse.main()

    return collect


def collected(tmp_path: Path) -> list[str]:
    return (tmp_path / "collected").read_text().split()


def test_the_digest_is_of_the_locks_in_the_order_of_their_names() -> None:
    locks = b"".join((IMAGES / f"locks/vllm-cpu/{layer}.txt").read_bytes() for layer in ("cai", "engine", "ray", "torch"))
    assert wheelhouse.digests("vllm-cpu-cai") == {
        "wheels/vllm-cpu": hashlib.sha256(locks).hexdigest(),
        "tool-wheels": hashlib.sha256((IMAGES / "locks/tools.txt").read_bytes()).hexdigest(),
    }


def test_it_is_filled_and_what_fits_is_kept(collect: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect("cpu", "vllm-cpu-cai") == 0
    assert collected(tmp_path) == ["collected-debs", "collected-vllm-cpu", "collected-tool-wheels", "collected-sglang-cpu"]
    house = tmp_path / "house"
    assert (house / "base.tar").read_text() == "base\n"
    assert (house / "BASE").read_text().splitlines() == ["debian:bookworm-slim", '["sha256:1"]', wheelhouse.packages(house)]
    for image in ("vllm-cpu", "sglang-cpu-cai"):
        wheelhouse.check(house, image, wheelhouse.digests(image))
    assert "make image TARGETS='vllm-cpu sglang-cpu'" in capsys.readouterr().err
    assert collect("vllm-cpu") == 0
    assert collected(tmp_path) == ["collected-debs"]


def test_equal_wheels_are_there_once(collect: Callable[..., int], tmp_path: Path) -> None:
    assert collect() == 0
    wheels = tmp_path / "house/wheels"
    assert (wheels / "vllm-cpu/torch.whl").samefile(wheels / "sglang-cpu/torch.whl")
    assert (wheels / "vllm-cpu/own.whl").read_text() == "collected-vllm-cpu\n"
    assert (wheels / "sglang-cpu/own.whl").read_text() == "collected-sglang-cpu\n"


def test_what_failed_half_way_is_not_there(collect: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect("vllm-cpu", broken="collected-vllm-cpu") == 74
    assert "the disk is full" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "house").iterdir()) == ["BASE", "base.tar", "debs"]
    with pytest.raises(BuildError, match="which has no wheels/vllm-cpu; collect it where there is a network: make wheelhouse TARGETS=vllm-cpu"):
        wheelhouse.check(tmp_path / "house", "vllm-cpu", wheelhouse.digests("vllm-cpu"))


@pytest.mark.parametrize("words", [["vllm-gpu"], ["--nope"]])
def test_a_command_line_that_cannot_be_used(collect: Callable[..., int], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(*words) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ray-serve-cai: error: ")
    assert words[0] in line


def test_a_file_is_in_its_place(collect: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "house").touch()
    assert collect("vllm-cpu") == 73
    assert f"ray-serve-cai: error: {tmp_path}/house cannot be written (File exists); free some space, or use another: --into." in capsys.readouterr().err


def test_without_docker(collect: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert collect("vllm-cpu") == 69
    assert "there is no docker command here" in capsys.readouterr().err


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"WHEELHOUSE is '{tmp_path}', which holds no Debian packages") as caught:
        wheelhouse.check(tmp_path, "vllm-cpu", {})
    assert caught.value.exit_code == 66


def test_debian_packages_are_for_the_base_image_they_were_collected_for(
    collect: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect("vllm-cpu", broken="collected-debs") == 74
    assert not (tmp_path / "house/BASE").exists()
    assert collect("vllm-cpu") == 0
    wheelhouse.check_base(tmp_path / "house", "debian:bookworm-slim", '["sha256:1"]')


@pytest.mark.parametrize(
    ("base", "found", "code", "words"),
    [
        (None, "x", 66, "which does not say which base image and Debian packages belong together; collect it anew"),
        ("debian:12\nx\n", "x", 66, "which does not say which base image and Debian packages belong together; collect it anew"),
        ("debian:12\nx\n0\n", "x", 78, "and its debs are not those that were collected for the base image debian:12; collect it anew"),
        ("debian:12\nx\nINDEX\n", "", 66, "and its base image debian:12 is not in Docker; load it: images/base.sh"),
        ("debian:13\ny\nINDEX\n", "x", 78, "are for the base image debian:13 of its base.tar, not for the debian:12 here; take that one: docker load"),
    ],
)
def test_another_base_image(tmp_path: Path, base: str | None, found: str, code: int, words: str) -> None:
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs/Packages").write_text("Package: tini\n")
    if base is not None:
        (tmp_path / "BASE").write_text(base.replace("INDEX", wheelhouse.packages(tmp_path)))
    with pytest.raises(BuildError, match=f"WHEELHOUSE is '{tmp_path}', .*{words}") as caught:
        wheelhouse.check_base(tmp_path, "debian:12", found)
    assert caught.value.exit_code == code


def test_wheels_of_other_locks(tmp_path: Path) -> None:
    for name, text in (("debs/Packages", ""), ("wheels/vllm-cpu/COMPLETE", "a" * 64)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    wheelhouse.check(tmp_path, "vllm-cpu", {"wheels/vllm-cpu": "a" * 64})
    with pytest.raises(BuildError, match="its wheels/vllm-cpu are for other versions than images/locks here") as caught:
        wheelhouse.check(tmp_path, "vllm-cpu", {"wheels/vllm-cpu": "b" * 64})
    assert caught.value.exit_code == 78
