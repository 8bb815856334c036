"""What an engine leaves behind when it is killed: processes, and shared memory. Here both are ended and removed.

An engine's processes hand tensors and messages to each other in files below /dev/shm, 100 MB and more for each replica. They remove
them when they end; killed with all of their helpers they cannot, and a node would be full after a few of such deaths.

python -m ray_serve_cai.engines.leftovers is started by a replica, outlives it, and cleans up after it.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

SHM = Path("/dev/shm")  # where POSIX shared memory is on Linux, not a temporary file of ours
GRACE_S = 3
WAIT_S = 60
LOOK_S = 0.5
_MAPPED = re.compile(rf"{SHM}/([^/\s]+)$", re.MULTILINE)


def segments(pids: Iterable[int]) -> set[str]:
    """Names below /dev/shm that these processes have mapped; a process that is gone has none."""
    found: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            found.update(_MAPPED.findall(Path(f"/proc/{pid}/maps").read_text()))
    return found


def members(group: int) -> list[int]:
    """The processes of a group that run; one that has ended and was not waited for does not."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def remove_unused(names: Iterable[str]) -> set[str]:
    """Remove the segments that no process has mapped; those that are still in use."""
    used = segments(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    for name in set(names) - used:
        with suppress(OSError):
            (SHM / name).unlink()
    return set(names) & used


def end_group(group: int, grace_s: float = GRACE_S, names: Iterable[str] = ()) -> None:
    """SIGTERM to every process of a group, SIGKILL to those that are still there after the grace; their shared memory goes with them.

    Args:
        names: segments of processes that may have gone before.
    """
    left = set(names) | segments(members(group))
    deadline = time.monotonic() + grace_s
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline and members(group):
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while (left := remove_unused(left)) and time.monotonic() < deadline:
        time.sleep(0.2)


class Undertaker:
    """A process that ends this one's group once this one is gone, however it goes, and removes its shared memory."""

    def __init__(self) -> None:
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        command = [sys.executable, "-m", "ray_serve_cai.engines.leftovers", str(os.getpid())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._input: IO[bytes] | None = process.stdin
        process.wait()  # it has left a child that nobody finds among ours: SGLang kills all of them

    def remember(self) -> None:
        """Tell it, once, which segments there are now, in case that their processes go first."""
        if self._input:
            self._input.write(json.dumps(sorted(segments(members(os.getpid())))).encode())
            self._input.close()


def main() -> None:
    """Read names until the process that the argument names has gone, then clean up after its group.

    The end of the input would not say so: the engine's processes, forked from that one, hold it open too. Until names come the engine
    is starting, and what it has is looked up again and again: of a start that fails nobody tells.
    """
    group = int(sys.argv[1])
    ended = os.pidfd_open(group)
    if os.fork():
        os._exit(0)
    os.setsid()
    received, open_, seen = b"", True, set[str]()
    while True:
        ready = select.select([ended, sys.stdin] if open_ else [ended], [], [], LOOK_S if open_ else None)[0]
        if sys.stdin in ready:
            piece = os.read(sys.stdin.fileno(), 65536)
            received, open_ = received + piece, bool(piece)
        elif ended in ready:  # and nothing is left to read
            break
        else:
            seen |= segments(members(group))
    with suppress(ValueError):
        seen |= set(json.loads(received))
    end_group(group, names=seen)


if __name__ == "__main__":
    main()
