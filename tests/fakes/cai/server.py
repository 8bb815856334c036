"""The workspace as a web server: its API, and before each application's port the proxy that asks who calls.

It is used as an HTTP proxy (``HTTP_PROXY``), so that ``http://cai.test`` and ``http://<subdomain>.cai.test`` need no DNS.
"""

from __future__ import annotations

import sys
import threading
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.fakes.cai.platform import KEY, Platform, Reply

if TYPE_CHECKING:
    from typing import Self

DOMAIN = "cai.test"
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade", "proxy-authorization"}


class Workspace:
    """Serves a platform on a free port of loopback, from ``with`` to its end."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.lock = threading.RLock()
        workspace = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                workspace._handle(self)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_one

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def proxy(self) -> str:
        """For HTTP_PROXY."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        host = url.netloc or handler.headers.get("Host", "")
        target = url.path + (f"?{url.query}" if url.query else "")
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if host == DOMAIN:
            with self.lock:
                headers = {name.lower(): value for name, value in handler.headers.items()}
                try:
                    reply = self.platform.answer(handler.command, target, headers, body)
                except AssertionError as error:  # what stands behind applications failed
                    print(error, file=sys.stderr, flush=True)
                    reply = Reply(500, {"error": "internal error", "code": 13, "message": "internal error", "details": []})
            _send(handler, reply)
            return
        self._to_application(handler, host.removesuffix(f".{DOMAIN}"), target, body)

    def _to_application(self, handler: BaseHTTPRequestHandler, subdomain: str, target: str, body: bytes) -> None:
        """[doc] Who calls is asked unless the application lets everybody in; a port that does not answer is a 502."""
        with self.lock:
            found = next((one for one in self.platform.applications.values() if one["subdomain"] == subdomain), None)
            url = self.platform.nodes.url(found) if found else None
            reply = self.platform.nodes.reply(found) if found else Reply(404, "no such application")
        if found and not found["bypass_authentication"] and handler.headers.get("Authorization") != f"Bearer {KEY}":
            reply, url = Reply(302, "", {"Location": f"http://{DOMAIN}/login"}), None
        if url is None:
            _send(handler, reply)
            return
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in HOP_BY_HOP}
        at = urlsplit(url)
        connection = HTTPConnection(at.hostname or "", at.port, timeout=300)
        try:
            connection.request(handler.command, target, body or None, headers)
            answer = connection.getresponse()
        except (OSError, HTTPException):
            connection.close()
            _send(handler, reply)
            return
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                handler.send_header(name, value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while chunk := answer.read1(1 << 16):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n")
        connection.close()


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    body = reply.json().encode()
    handler.send_response(reply.status)
    for name, value in {"Content-Type": "application/json", **reply.headers}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
