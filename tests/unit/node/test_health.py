import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ray_serve_cai.errors import UnavailableError, UsageError
from ray_serve_cai.node import health


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """A launcher that answers one connection with given bytes."""
    with ExitStack() as stack:

        def start(answer: bytes) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            return int(listener.getsockname()[1])

        yield start


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(("status", "code"), [("200 OK", 200), ("503 Service Unavailable", 503)])
def test_status_and_document(answering: Callable[[bytes], int], status: str, code: int) -> None:
    document = {"ready": code == 200, "phase": "any"}
    assert health.ask("/ready", answering(http(status, json.dumps(document)))) == (code, document)


def test_the_port_of_the_environment(answering: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_STATUS_PORT", str(answering(http("200 OK", '{"phase": "any"}'))))
    assert health.ask("/health") == (200, {"phase": "any"})


def test_another_program_has_the_port(answering: Callable[[bytes], int]) -> None:
    with pytest.raises(UnavailableError, match=r"what answers on 127\.0\.0\.1:\d+ is no launcher; stop it"):
        health.ask("/ready", answering(http("200 OK", '{"status": "ok"}')))


def test_nothing_listens(free_port: int) -> None:
    with pytest.raises(UnavailableError, match=rf"no launcher answers on 127\.0\.0\.1:{free_port} .*; start one with `ray-serve-cai node`"):
        health.ask("/health", free_port)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0\r\n", id="no HTTP"),
        pytest.param(http("200 OK", "<html>"), id="no JSON"),
        pytest.param(http("200 OK", "[1]"), id="no object"),
    ],
)
def test_something_else_listens(answering: Callable[[bytes], int], answer: bytes) -> None:
    port = answering(answer)
    with pytest.raises(UnavailableError, match=str(port)):
        health.ask("/health", port)


def test_a_port_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_STATUS_PORT", "http")
    with pytest.raises(UsageError, match="RSCAI_STATUS_PORT is 'http'"):
        health.ask("/health")
