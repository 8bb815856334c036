"""One application's life, with programs in the launcher's place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ray_serve_cai.cai import on_node, rendezvous
from ray_serve_cai.cai.on_node import launcher_environment, pause, place
from ray_serve_cai.cai.rendezvous import Record
from ray_serve_cai.errors import UsageError
from ray_serve_cai.node.machine import Machine
from tests.containers import free_port, until

pytestmark = pytest.mark.issue(9)
TOKEN = "t" * 48


def test_the_role_is_given() -> None:
    assert place({"RSCAI_ROLE": "worker"}).file == Path("/home/cdsw/ray-serve-cai/ray-serve.address.json")
    assert place({"RSCAI_ROLE": "head", "CDSW_APP_PORT": "8123"}).port == 8123
    for env, words in (
        ({}, "RSCAI_ROLE is ''"),
        ({"RSCAI_ROLE": "single"}, "'single'"),
        ({"RSCAI_ROLE": "head", "CDSW_APP_PORT": "x"}, "CDSW_APP_PORT"),
    ):
        with pytest.raises(UsageError, match=words):
            place(env)


def test_a_heads_launcher_listens_where_the_platform_publishes() -> None:
    env = {"RSCAI_ROLE": "head", "RSCAI_CLUSTER": "m", "RSCAI_CLUSTER_DIR": "/p", "RSCAI_HEAD_ADDRESS": "old:1"}
    made = launcher_environment(env, place(env), None)
    assert {name: made[name] for name in ("RSCAI_HOST", "RSCAI_PORT", "RSCAI_STATE_DIR")} == {
        "RSCAI_HOST": "127.0.0.1",
        "RSCAI_PORT": "8100",
        "RSCAI_STATE_DIR": "/p/m.state",
    }
    assert "RSCAI_HEAD_ADDRESS" not in made


def test_a_worker_is_told_its_head_and_has_no_door() -> None:
    env = {"RSCAI_ROLE": "worker"}
    made = launcher_environment(env, place(env), "10.0.0.1:6379")
    assert made["RSCAI_HEAD_ADDRESS"] == "10.0.0.1:6379"
    assert "RSCAI_PORT" not in made


def test_pauses_grow_and_a_long_life_is_a_new_beginning() -> None:
    lives, waits = 0, []
    for _ in range(8):
        lives, wait_s = pause(lives, 1)
        waits.append(wait_s)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pause(lives, 1e6) == (1, 1)


def test_what_the_platform_gives_is_offered_to_ray() -> None:
    from ray_serve_cai.node import discovery

    here = Machine(frozenset({"10.0.0.9"}), frozenset(), 64, 512 << 30, 64 << 20, 0, lambda _: "10.0.0.9")
    env = {"RSCAI_ROLE": "head", "CDSW_CPU_MILLICORES": "2500", "CDSW_MEMORY_MB": "8000", "CDSW_IP_ADDRESS": "10.1.2.3"}
    made = discovery.plan(env, here)
    assert (made.resources.cpus, made.node_ip) == (3, "10.1.2.3")
    assert 6 << 30 < made.resources.memory < 8000 * 10**6
    assert discovery.plan({**env, "CDSW_CPU_MILLICORES": "many", "CDSW_MEMORY_MB": ""}, here).resources.cpus == 64


class Running:
    """An application as a process of its own, with ``program`` in its launcher's place."""

    def __init__(self, tmp_path: Path, role: str, program: str) -> None:
        self.port, self.status_port, self.directory = free_port(), free_port(), tmp_path
        launcher = tmp_path / "launcher.py"
        launcher.write_text(program)
        run = f"from ray_serve_cai.cai.on_node import Application; import asyncio, os, sys; sys.exit(asyncio.run(Application(os.environ, [sys.executable, {str(launcher)!r}]).run()))"
        env = {"RSCAI_ROLE": role, "RSCAI_CLUSTER": "m", "RSCAI_CLUSTER_DIR": str(tmp_path), "RSCAI_TOKEN": TOKEN, "RSCAI_DRAIN_S": "1"}
        env |= {
            "CDSW_APP_PORT": str(self.port),
            "RSCAI_STATUS_PORT": str(self.status_port),
            "CDSW_IP_ADDRESS": "127.0.0.1",
            "PATH": "/usr/bin:/bin",
        }
        env |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        self.log = tmp_path / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", run], env=env, stdout=log, stderr=log)

    def get(self, path: str = "/") -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5, trust_env=False)

    def phase(self) -> str:
        return str(self.get().json()["phase"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, str], Running]]:
    started: list[Running] = []

    def start(role: str, program: str) -> Running:
        started.append(Running(tmp_path, role, program))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()  # its launcher would outlive a kill
        one.process.wait(20)


WAITS = "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: exit(0))\ntime.sleep(600)\n"


def test_a_worker_answers_before_there_is_a_head(start: Callable[[str, str], Running]) -> None:
    worker = start("worker", WAITS)
    until("the port answers", lambda: worker.get().status_code == 200, 20, 0.05)
    told = worker.get().json()
    assert (told["role"], told["phase"]) == ("worker", "waiting for the head")
    assert "m.address.json" in told["phase_detail"]
    assert (worker.get("/health").status_code, worker.get("/ready").status_code) == (200, 503)
    refused = worker.get("/v1/models")
    assert refused.status_code == 503
    assert "Models answer at the head's address." in refused.json()["error"]["message"]
    assert refused.headers["Retry-After"] == "5"
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(20) == 0


def test_a_worker_goes_where_its_head_goes(start: Callable[[str, str], Running], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    start("worker", f"import os\nopen({str(seen)!r}, 'a').write(os.environ['RSCAI_HEAD_ADDRESS'] + ' ')\n{WAITS}")
    file = rendezvous.place(tmp_path, "m")
    rendezvous.write(file, Record("10.0.0.1:6379", "s1", {}))
    until("it joins", lambda: seen.exists() and seen.read_text() == "10.0.0.1:6379 ", 20)
    rendezvous.write(file, Record("10.0.0.1:6379", "s2", {}))  # a head that was started anew where it was is the launcher's to see
    time.sleep(on_node.LOOK_S + 1)
    assert seen.read_text() == "10.0.0.1:6379 "
    rendezvous.write(file, Record("10.0.0.7:6379", "s3", {}))
    until("it joins the other", lambda: seen.read_text() == "10.0.0.1:6379 10.0.0.7:6379 ", 20)


def test_a_launcher_that_dies_is_started_again(start: Callable[[str, str], Running], tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    said = "ray-serve-cai: error: Ray died."
    head = start("head", f"import sys\nopen({str(lives)!r}, 'a').write('x')\nsys.stderr.write({said!r})\nexit(70)\n")
    until("three lives", lambda: lives.exists() and len(lives.read_text()) >= 3, 30)
    told = until("it says why", lambda: (told := head.get().json())["phase"] == "starting again" and told, 10, 0.05)
    assert "exit code 70: Ray died." in told["phase_detail"]
    assert head.process.poll() is None


def test_nothing_of_a_launcher_outlives_it(start: Callable[[str, str], Running], tmp_path: Path) -> None:
    """As in a container that is started anew: a proxy of its, in a session of its own and without a parent, would hold its port."""
    left = tmp_path / "left"
    orphan = f"import os, subprocess\nif os.fork() == 0:\n    os.setsid()\n    print(subprocess.Popen(['sleep', '600']).pid, file=open({str(left)!r}, 'a'))\n    os._exit(0)\n"
    start("head", f"{orphan}import time; time.sleep(.5); exit(70)\n")
    until("two lives", lambda: left.exists() and len(left.read_text().split()) >= 2, 30)
    first = int(left.read_text().split()[0])
    assert not psutil.pid_exists(first)


def test_what_only_a_change_helps_is_shown_and_then_ends_it(start: Callable[[str, str], Running]) -> None:
    head = start("head", "import sys\nsys.stderr.write('ray-serve-cai: error: models[0].source: missing.')\nexit(78)\n")
    told = until("it says why", lambda: (told := head.get("/health").json())["status"] == "failed" and told, 20, 0.1)
    assert (told["phase"], told["phase_detail"]) == ("failed", "models[0].source: missing.")
    head.process.send_signal(signal.SIGTERM)
    assert head.process.wait(20) == 78


HEAD = """
import json, os, signal, socket, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        authorized = self.headers.get("Authorization") == "Bearer " + os.environ["RSCAI_TOKEN"]
        told = {"session": "s9", "manifest": {"ray": "2.60.0"}, "stopping": False, "nodes": []} if self.path == "/cluster" else {"front": "door"}
        self.send_response(200 if self.path != "/cluster" or authorized else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())
    def log_message(self, *_): pass

class Shared(ThreadingHTTPServer):
    allow_reuse_port = True
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(1.5)
threading.Thread(target=Shared(("127.0.0.1", int(os.environ["RSCAI_PORT"])), Handler).serve_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["RSCAI_STATUS_PORT"])), Handler).serve_forever()
"""


def test_a_head_leaves_its_port_to_the_door_without_a_gap_and_tells_where_it_is(
    start: Callable[[str, str], Running], tmp_path: Path
) -> None:
    head = start("head", HEAD)
    until("the port answers", lambda: head.get().status_code == 200, 20, 0.05)
    failures, seen = [], set[str]()
    deadline = time.monotonic() + 20
    while "front" not in seen and time.monotonic() < deadline:
        try:
            answer = head.get()
            seen.add("front" if "front" in answer.json() else answer.json()["phase"])
            assert answer.status_code == 200
        except httpx.HTTPError as error:
            failures.append(repr(error))
    for _ in range(50):
        with contextlib.suppress(httpx.HTTPError):
            seen.add("front" if "front" in head.get().json() else "reception")
    assert failures == []
    assert "front" in seen
    assert "starting" in seen
    file = rendezvous.place(tmp_path, "m")
    record = until("its address is written", lambda: rendezvous.read(file), 10)
    assert (record.address, record.session, record.versions["ray"]) == ("127.0.0.1:6379", "s9", "2.60.0")
    assert TOKEN not in file.read_text()
    until("the reception is closed", lambda: all("front" in head.get().json() for _ in range(8)), 10)
    head.process.send_signal(signal.SIGTERM)
    assert head.process.wait(20) == 0
    assert not file.exists()


def test_a_port_that_is_taken_is_said(tmp_path: Path, start: Callable[[str, str], Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {"RSCAI_ROLE": "worker", "CDSW_APP_PORT": str(taken.getsockname()[1]), "RSCAI_CLUSTER_DIR": str(tmp_path)}
        from ray_serve_cai.errors import ResourceError

        with pytest.raises(ResourceError, match="is in use"):
            asyncio.run(on_node.Application(env).run())


def test_the_launcher_file_runs_as_cells(tmp_path: Path) -> None:
    """As a kernel runs them: no ``__file__``, and an exception is what ends it with an error."""
    from tests.fakes.cai.pod import cells

    text = (Path(on_node.__file__).parent / "launch.py").read_text()
    program = tmp_path / "ray-serve-cai"
    program.write_text('#!/bin/sh\necho "$@"; exit 5\n')
    program.chmod(0o755)
    run = f"import json\nscope = {{}}\nfor cell in json.loads({json.dumps(json.dumps(cells(text)))}):\n    exec(cell, scope)\n"
    done: Any = subprocess.run(
        [sys.executable, "-c", run], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "cai node\n"
    assert "ended with exit code 5" in done.stderr
