"""One process at a time, and what the others say."""

import errno
import fcntl
import threading
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai.errors import ResourceError
from ray_serve_cai.fetch import lock
from tests.containers import until

pytestmark = pytest.mark.issue(6)


def test_those_who_wait_say_so_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SAY_EVERY_S", 0.05)
    lines: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with lock.held(tmp_path / "lock", lines.append):
            entered.set()

    with lock.held(tmp_path / "lock", lines.append) as note:
        note("downloading: 1 of 2 GiB")
        other = threading.Thread(target=second)
        other.start()
        until("three lines", lambda: len(lines) >= 3, 10, 0.01)
        assert not entered.is_set()
    other.join(10)
    assert entered.is_set()
    assert all("which fetches the same model: downloading: 1 of 2 GiB (" in line for line in lines)


def test_a_holder_that_says_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: lock.held(tmp_path / "lock", lines.append).__enter__())
        waiting.start()
        until("it says that it waits", lambda: lines, 10, 0.01)
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.join(10)
    assert lines == ["waiting for another process, which fetches the same model (0 s)"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(ResourceError, match=r"lock cannot be locked \(No locks available\); .*NFS without nolock"),
        lock.held(tmp_path / "lock", print),
    ):
        pass


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file or directory"), lock.held(tmp_path / "nowhere" / "lock", print):
        pass
