"""What stands around a front door: backends that say who they are, and a client of the door itself."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ray_serve_cai.node import frontdoor
from ray_serve_cai.node.access import Key, Maps
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.frontdoor import Sockets

Plan = Callable[..., NodePlan]


class _AtPath(ThreadingHTTPServer):
    """A server at a Unix socket."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "gateway", 0


class Backend:
    """The launcher's status server, Ray's ingress, or the gateway at a path: says who it is and which path it saw."""

    def __init__(self, name: str, stack: ExitStack, path: Path | None = None) -> None:
        self.routable = {"/routable/0", "/routable/1"}
        self.lag_s = 0.0
        self.seen: list[str] = []
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()
        self.hold.set()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path
                if path.startswith("/routable/"):
                    time.sleep(backend.lag_s)
                else:
                    backend.seen.append(path)
                    backend.headers = {name.lower(): value for name, value in self.headers.items()}
                    if path.endswith("/held"):
                        backend.hold.wait(10)
                once = path.endswith("/once") and backend.seen.count(path) == 1
                if path.endswith("/broken") or once:
                    self.close_connection = True
                    return
                status, kind = (500, "text/plain") if path.endswith("/crash") else (200, "application/json")
                if path.startswith("/routable/") and path not in backend.routable:
                    status = 503
                body = json.dumps({"from": name, "path": path}).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def handle(self) -> None:
                with suppress(ConnectionError):  # HAProxy resets its health checks
                    super().handle()

        made = _AtPath(str(path), Handler) if path else ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # type: ignore[arg-type]
        server = stack.enter_context(made)
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        self.port = server.server_port


class Door:
    """A running front door before two backends."""

    def __init__(self, port: int, launcher: Backend, ray: Backend, gateway: Backend) -> None:
        self.port, self.launcher, self.ray, self.gateway = port, launcher, ray, gateway
        self.key: str | None = None

    def ask(self, path: str, body: bytes | None = None, length: int | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            headers = ({"Authorization": f"Bearer {self.key}"} if self.key else {}) | headers
            sent = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Content-Length": str(length)} if length else {})
            connection.request("GET" if body is None else "POST", path, body, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def source(self, path: str, body: bytes | None = None) -> tuple[str, str]:
        document = json.loads(self.ask(path, body)[2])
        return document["from"], document["path"]

    def until(self, path: str, name: str) -> None:
        deadline = time.monotonic() + 10
        seen: object = "nothing yet"
        while time.monotonic() < deadline:
            try:
                seen = self.source(path)
                if seen[0] == name:
                    return
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                seen = error
            time.sleep(0.02)
        pytest.fail(f"{path} is not answered by {name}; last seen: {seen}")


DIRECTORY = Path("/tmp/rscai-test-door")


def rendered(
    plan: NodePlan,
    name: str = "demo",
    others: tuple[str, ...] = ("other",),
    directory: Path = DIRECTORY,
    megabytes: int = 64,
    threads: int = 2,
    keys: bool = False,
) -> str:
    """The front door's file for a model and others."""
    models = [name, *others]
    return frontdoor.render(plan, models=models, directory=directory, max_body_mb=megabytes, threads=threads, connections=512, keys=keys)


@contextmanager
def opened(make_plan: Plan, directory: Path, *others: str, keys: Sequence[Key] = ()) -> Iterator[Door]:
    """A door of the model ``demo``, and of others, before backends that say who they are."""
    sockets = Sockets.within(directory)
    with ExitStack() as stack:
        gateway = Backend("gateway", stack, sockets.gateway)
        launcher, ray = Backend("launcher", stack), Backend("ray", stack)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        plan = make_plan({"RSCAI_HOST": "127.0.0.1"})
        plan = replace(plan, ports=replace(plan.ports, front_door=port, status=launcher.port, serve_http=ray.port))
        Maps.of(keys, ["demo", *others], directory).write()
        file = directory / "haproxy.cfg"
        file.write_text(rendered(plan, others=others, directory=directory, megabytes=1, threads=1, keys=bool(keys)))
        process = stack.enter_context(subprocess.Popen([frontdoor.binary(), "-db", "-f", str(file)], stderr=subprocess.DEVNULL))
        stack.callback(process.kill)
        made = Door(port, launcher, ray, gateway)
        made.key = "admin-key" if keys else None
        made.until("/v1/x", "ray")
        for other in others:
            made.until(f"/models/{other}/v1/x", "ray")
        yield made
