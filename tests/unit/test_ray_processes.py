"""Real processes with command lines such as Ray's: one cluster's end, all others live."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from ray_serve_cai import ray_processes

ADDRESS = "192.0.2.7:6379"
SESSION = "/tmp/ray/session_2026-11-24_20-00-00_123456_77"
SLEEP = "import time; time.sleep(60)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"


@pytest.fixture
def start() -> Iterator[Callable[..., psutil.Process]]:
    """Starts a Python process with more words on its command line."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, code: str = SLEEP) -> psutil.Process:
        started.append(subprocess.Popen([sys.executable, "-c", code, *words]))
        return psutil.Process(started[-1].pid)

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_one_cluster_ends_and_others_live(start: Callable[..., psutil.Process]) -> None:
    raylet = start(f"--gcs-address={ADDRESS}", f"--session={SESSION}", code=CHILD)
    gcs = start("--gcs_server_port=6379", f"--log_dir={SESSION}/logs")
    other = start("--gcs-address=192.0.2.8:6379", "--session=/tmp/ray/session_2026-11-24_20-00-00_123456_78")
    stranger = start("session", "6379", ADDRESS)
    while not (children := raylet.children()):
        assert raylet.is_running()
    assert ray_processes.end(ADDRESS, 5) >= 3
    assert [process.is_running() and process.status() != "zombie" for process in (raylet, gcs, *children)] == [False] * 3
    assert [process.is_running() and process.status() != "zombie" for process in (other, stranger)] == [True] * 2


def test_a_process_that_does_not_listen_is_killed(start: Callable[..., psutil.Process]) -> None:
    ready = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    deaf = start(f"--gcs-address={ADDRESS}", code=ready)
    while deaf.status() == "running" and deaf.cpu_times().user == 0:
        assert deaf.is_running()
    ray_processes.end(ADDRESS, 1)
    assert not deaf.is_running() or deaf.status() == "zombie"


def test_nothing_to_end() -> None:
    assert ray_processes.end("192.0.2.99:1", 0.1) == 0
