"""Real processes and real shared memory: what a killed group leaves is ended and removed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_serve_cai.engines import leftovers

MAPS = """
import mmap, os, sys, time
name = sys.argv[1]
with open(f"/dev/shm/{name}", "w+b") as file:
    file.truncate(4096)
    mapped = mmap.mmap(file.fileno(), 4096)
print("ready", flush=True)
time.sleep(600)
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
OWNER = """
import subprocess, sys, time
from ray_serve_cai.engines.leftovers import Undertaker
undertaker = Undertaker()
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
undertaker.remember()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def segment() -> str:
    return f"rscai-test-{os.getpid()}-{time.monotonic_ns()}"


def started(*command: str) -> tuple[subprocess.Popen[str], str]:
    """A process in a group of its own, and its first line."""
    process = subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    with process.stdout:
        return process, process.stdout.readline().strip()


def gone(path: Path) -> bool:
    deadline = time.monotonic() + 15
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not path.exists()


@pytest.mark.parametrize("prelude", ["", DEAF], ids=["ends when asked", "does not listen"])
def test_a_group_ends_and_its_memory_goes(segment: str, prelude: str) -> None:
    process, _ = started(prelude + MAPS, segment)
    path = leftovers.SHM / segment
    assert leftovers.segments([process.pid]) == {segment}
    assert leftovers.remove_unused([segment]) == {segment}, "it is in use"
    assert path.exists()
    leftovers.end_group(process.pid, 0.3)
    assert process.wait(5) in (-signal.SIGTERM, -signal.SIGKILL)
    assert not path.exists()
    assert leftovers.members(process.pid) == []


def test_the_undertaker_outlives_its_owner(segment: str) -> None:
    """The owner and its child are killed at once; what the child shared is removed all the same."""
    owner, child = started(OWNER, segment, MAPS)
    path = leftovers.SHM / segment
    assert path.exists()
    os.kill(int(child), signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert gone(path)


def test_the_undertaker_ends_what_the_owner_left(segment: str) -> None:
    owner, child = started(OWNER, segment, MAPS)
    owner.kill()
    owner.wait()
    assert gone(leftovers.SHM / segment)
    assert gone(Path("/proc") / child)


def test_nothing_is_known_of_a_process_that_is_gone() -> None:
    assert leftovers.segments([2**22 + 1]) == set()
