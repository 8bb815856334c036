"""A mirror of package indexes and of Debian's archive, as companies run one: https with a certificate of its own authority, and a password.

Everything is passed on from where this machine gets it; a directory of wheels of this machine is an index of its own.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ARCHIVES = {"debian": "http://deb.debian.org/debian", "debian-security": "http://deb.debian.org/debian-security"}


@dataclass
class Mirror:
    """A mirror that runs: its address, what it takes to be let in, and what it gave to whom."""

    host: str
    port: int
    user: str
    password: str
    index: str
    wheels: Path | None
    given: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        """An address with the password in it."""
        return f"https://{self.user}:{urllib.parse.quote(self.password, safe='')}@{self.host}:{self.port}/{path}"


@contextmanager
def mirror(certificate: Path, host: str, password: str, index: str, wheels: Path | None) -> Iterator[Mirror]:
    """Serve on ``host`` with the ``tls.crt`` and ``tls.key`` of a directory."""
    running = Mirror(host, 0, "builder", password, index.rstrip("/"), wheels)
    expected = "Basic " + base64.b64encode(f"{running.user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != expected:
                running.refused.append(self.path)
                self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="mirror"'})
                return
            kind, _, rest = urllib.parse.unquote(self.path).lstrip("/").partition("/")
            running.given.append(self.path)
            if kind in ARCHIVES:
                self._pass_on(f"{ARCHIVES[kind]}/{rest}")
            elif kind == "file":
                self._pass_on(rest.replace("/", "://", 1))
            elif kind == "wheels" and running.wheels:
                self._wheels(rest)
            else:
                name = rest.removeprefix("simple/")
                self._page(f"{'https://download.pytorch.org/whl/cpu' if kind == 'wheels' else running.index}/{name}")

        def _page(self, url: str) -> None:
            """A page of an index, with each file's address here."""
            try:
                with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": "text/html"}), timeout=60) as page:
                    text, base = page.read().decode(), page.url
            except urllib.error.HTTPError as error:
                self._answer(error.code, b"")
                return

            def here(found: re.Match[str]) -> str:
                return f'href="/file/{urllib.parse.urljoin(base, html.unescape(found[1])).replace("://", "/", 1)}"'

            self._answer(200, re.sub(r'href="([^"]+)"', here, text).encode(), {"Content-Type": "text/html"})

        def _wheels(self, rest: str) -> None:
            assert running.wheels is not None
            if rest.endswith(".whl"):
                content = (running.wheels / Path(rest).name).read_bytes()
                self._answer(200, content)
                return
            name = re.sub(r"[-_.]+", "-", rest.removeprefix("simple/").strip("/")).lower()
            found = [
                file.name
                for file in sorted(running.wheels.glob("*.whl"))
                if re.sub(r"[-_.]+", "-", file.name.split("-")[0]).lower() == name
            ]
            links = "".join(f'<a href="/wheels/{urllib.parse.quote(file)}">{file}</a>' for file in found)
            self._answer(200 if found else 404, f"<html><body>{links}</body></html>".encode(), {"Content-Type": "text/html"})

        def _pass_on(self, url: str) -> None:
            wanted = {name: self.headers[name] for name in ("Range", "If-Modified-Since") if self.headers[name]}
            try:
                request = urllib.request.Request(urllib.parse.quote(url, safe=":/%?=&#+~"), headers=wanted, method=self.command)
                with urllib.request.urlopen(request, timeout=300) as answer:
                    self.send_response(answer.status)
                    for name in ("Content-Length", "Content-Range", "Content-Type", "Last-Modified", "Accept-Ranges"):
                        if answer.headers[name]:
                            self.send_header(name, answer.headers[name])
                    self.end_headers()
                    if self.command == "GET":
                        shutil.copyfileobj(answer, self.wfile, 1 << 20)
            except urllib.error.HTTPError as error:
                self._answer(error.code, b"")

        def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that leaves is no news."""

    with Server((host, 0), Handler) as server:
        running.port = server.server_port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield running
        server.shutdown()
        thread.join()
