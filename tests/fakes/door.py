"""What stands around a front door: backends that say who they are, and a client of the door itself."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import threading
import time
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


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

    def __init__(self, port: int, launcher: Backend, ray: Backend) -> None:
        self.port, self.launcher, self.ray = port, launcher, ray

    def ask(self, path: str, body: bytes | None = None, length: int | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
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
