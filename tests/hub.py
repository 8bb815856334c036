"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that downloads use, with faults on demand.

``/api/models/ID[/revision/REV]`` lists files; ``/ID/resolve/REV/FILE`` describes one (HEAD) and sends it (GET). Large files are kept by
their sha256 and sent by another address, to which the hub redirects.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
LARGE = (".safetensors", ".bin", ".pth", ".onnx", ".gguf")
PIECE = 64 * 1024


def demo() -> dict[str, bytes]:
    """The files of the demo model."""
    return {path.name: path.read_bytes() for path in sorted((ROOT / "images/demo/model").iterdir())}


@dataclass
class Fault:
    """What happens to a file's next requests."""

    after: int = 0
    """Bytes of the answer that are sent before it happens."""
    times: int = 1
    wrong: bool = False
    """Send other bytes instead of breaking off."""
    until: threading.Event | None = None
    """Wait for this instead of breaking off."""
    status: int = 0
    """Answer this instead of the file."""


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str
    authorization: str


@dataclass
class Repository:
    """One model."""

    files: Mapping[str, bytes]
    commit: str
    token: str = ""
    """Who has it may download; everybody may list."""
    status: int = 0
    """Answered to everything, where it is one."""

    def large(self, name: str) -> bool:
        return name.endswith(LARGE)

    def digest(self, name: str) -> str:
        content = self.files[name]
        return hashlib.sha256(content).hexdigest() if self.large(name) else _blob_id(content)

    def sibling(self, name: str) -> dict[str, object]:
        content = self.files[name]
        described: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
        if self.large(name):
            described["lfs"] = {"sha256": self.digest(name), "size": len(content), "pointerSize": 135}
        return described


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class FakeHub:
    """Serves from a thread while it is entered."""

    host: str = "127.0.0.1"
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    ignores_ranges: bool = False
    seen: list[Request] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """File -> bytes of it that were sent."""
    stopped: bool = False

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer((self.host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nothing any more, not even on connections that are open; more than once is one time."""
        self.stopped = True
        for fault in self.faults.values():
            if fault.until:
                fault.until.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def add(self, model: str, files: Mapping[str, bytes]) -> Repository:
        made = Repository(files, hashlib.sha1(model.encode()).hexdigest())
        self.repositories[model] = made
        return made

    def ranges(self, name: str) -> list[str]:
        """The parts of a file that were asked for, one for each request that got bytes."""
        return [
            one.range for one in self.seen if one.method == "GET" and one.path.startswith("/content/") and one.path.endswith(f"/{name}")
        ]


class _Handler(BaseHTTPRequestHandler):
    served: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.served.stopped:
            self.close_connection = True
            return
        path = unquote(urlsplit(self.path).path)
        asked = Request(self.command, path, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
        self.served.seen.append(asked)
        if found := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            self._list(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/content/(.+)//(.+)", path):
            self._send(self.served.repositories[found[1]], found[2])
        elif found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3], asked.authorization)
        else:
            self._say(404, {})

    def _list(self, model: str, revision: str) -> None:
        there = self._repository(model, revision)
        if there:
            siblings = [there.sibling(name) for name in there.files]
            self._say(200, {}, json.dumps({"id": model, "sha": there.commit, "siblings": siblings}).encode())

    def _resolve(self, model: str, revision: str, name: str, authorization: str) -> None:
        there = self._repository(model, revision)
        if there is None:
            return
        if there.token and authorization != f"Bearer {there.token}":
            self._say(401, {"X-Error-Code": "GatedRepo"})
        elif name not in there.files:
            self._say(404, {"X-Error-Code": "EntryNotFound"})
        else:
            size, etag = str(len(there.files[name])), f'"{there.digest(name)}"'
            linked = {"X-Linked-Size": size, "X-Linked-ETag": etag} if there.large(name) else {"ETag": etag}
            self._say(302, linked | {"X-Repo-Commit": there.commit, "Location": f"/content/{model}//{name}"})

    def _repository(self, model: str, revision: str) -> Repository | None:
        there = self.served.repositories.get(model)
        if there is None:
            self._say(404, {"X-Error-Code": "RepoNotFound"})
        elif there.status:
            self._say(there.status, {})
        elif revision not in ("main", there.commit):
            self._say(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return there
        return None

    def _send(self, there: Repository, name: str) -> None:
        content = there.files[name]
        fault = self.served.faults.get(name)
        if fault and fault.times > 0:
            fault.times -= 1
        else:
            fault = None
        if fault and fault.status:
            self._say(fault.status, {})
            return
        start, end = 0, len(content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        partial = asked is not None and not self.served.ignores_ranges
        if asked and partial:
            start, end = int(asked[1]), min(int(asked[2]) + 1, end)
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{there.digest(name)}"')
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        body = content[start:end]
        if fault and fault.wrong:
            body = bytes(byte ^ 255 for byte in body)
        try:
            if fault and not fault.wrong:
                self._write(name, body[: fault.after])
                if fault.until is None:
                    self.close_connection = True
                    return
                fault.until.wait(60)
                body = body[fault.after :]
            self._write(name, body)
        except OSError:
            self.close_connection = True  # the client has left

    def _write(self, name: str, body: bytes) -> None:
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            self.wfile.write(piece)
            self.wfile.flush()
            self.served.sent[name] = self.served.sent.get(name, 0) + len(piece)

    def _say(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
