"""Where compose/docker-engine.sh takes Docker's packages from on Debian 12; nothing is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "compose/docker-engine.sh"
APT = "#!/bin/sh\necho 'bookworm-updates http://own/updates/'\necho 'bookworm http://own/debian/'\n"
Call = Callable[..., str]
pytestmark = pytest.mark.issue(8)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a function of the script, whose last line would run all of it, on a machine whose apt-get knows one archive."""
    (tmp_path / "apt-get").write_text(APT)
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    *functions, last = SCRIPT.read_text().splitlines(keepends=True)
    assert last == "main\n"
    (tmp_path / "functions.sh").write_text("".join(functions))

    def call(*words: str, **environment: str) -> str:
        command = ["bash", "-c", 'source "$0"; "$@"', tmp_path / "functions.sh", *words]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout

    return call


@pytest.mark.parametrize(
    ("environment", "mirror"),
    [
        ({}, "http://own/debian/"),
        ({"DEBIAN_MIRROR": ""}, "http://own/debian/"),
        ({"DEBIAN_MIRROR": "https://mirror.example.com/debian"}, "https://mirror.example.com/debian/"),
        ({"DEBIAN_MIRROR": "https://u:p@mirror.example.com/debian/"}, "https://u:p@mirror.example.com/debian/"),
    ],
)
def test_the_mirror_that_is_named_goes_before_this_machines_own(call: Call, environment: dict[str, str], mirror: str) -> None:
    assert call("apt_mirror", "bookworm", **environment) == mirror


@pytest.mark.parametrize(
    ("mirror", "login"),
    [
        ("https://mirror.example.com/debian/", ""),
        ("https://u:p@mirror.example.com/debian/", "machine https://mirror.example.com/debian/ login u password p\n"),
        ("https://token@mirror.example.com/debian/", "machine https://mirror.example.com/debian/ login token\n"),
        ("http://me%40here:a%2Fb@[fd00::1]:8080/d/", "machine http://[fd00::1]:8080/d/ login me@here password a/b\n"),
    ],
)
def test_a_password_goes_where_only_apt_reads_it(call: Call, mirror: str, login: str) -> None:
    assert call("apt_login", mirror) == login
    assert "@" not in call("without_password", mirror)
