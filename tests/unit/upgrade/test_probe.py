"""How long nobody got an answer, from samples, and the samples from servers that answer, refuse, or close."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ray_serve_cai.node.address import Address
from ray_serve_cai.upgrade.probe import ANSWER, REFUSED, Probe, Sample, Silence, ask, longest_silence

pytestmark = pytest.mark.issue(6)


def samples(*outcomes: str) -> list[Sample]:
    """One a second, each answered after a quarter of it."""
    return [Sample(second, second + 0.25, outcome) for second, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "seconds", "seen"),
    [
        ((), 0.0, {}),
        ((ANSWER,), 0.0, {}),
        ((ANSWER, ANSWER, ANSWER), 1.0, {}),
        ((ANSWER, REFUSED, REFUSED, "503", ANSWER), 4.0, {REFUSED: 2.0, "503": 1.0}),
        ((ANSWER, REFUSED, ANSWER, "503", "503", ANSWER, REFUSED, ANSWER), 3.0, {"503": 2.0}),
        ((ANSWER, REFUSED, REFUSED), 2.0, {REFUSED: 2.0}),
        ((REFUSED, REFUSED, ANSWER, ANSWER), 1.0, {}),
    ],
    ids=["nothing", "one", "all is well", "one pause", "the longest of three", "not yet over", "before the first"],
)
def test_longest_silence(outcomes: tuple[str, ...], seconds: float, seen: dict[str, float]) -> None:
    assert longest_silence(samples(*outcomes)) == Silence(seconds, seen)


def test_in_words() -> None:
    silence = Silence(43.21, {REFUSED: 9.99, "503": 33.0})
    assert str(silence) == "no answer for 43.2 s (10.0 s connection refused, 33.0 s 503)"
    assert str(Silence(0.2, {})) == "no answer for 0.2 s"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def door() -> Iterator[Address]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Address("127.0.0.1", server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "outcome"), [(200, ANSWER), (401, ANSWER), (503, "503"), (500, "500")])
def test_an_answer_of_the_engine_counts_and_one_of_the_proxy_does_not(door: Address, status: int, outcome: str) -> None:
    assert ask(door, f"/{status}/v1/models") == outcome


def test_no_answer(free_port: int) -> None:
    assert ask(None, "/200") == REFUSED
    assert ask(Address("127.0.0.1", free_port), "/200") == REFUSED


def test_a_connection_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=close)
        thread.start()
        assert ask(Address("127.0.0.1", listener.getsockname()[1]), "/200") == "connection closed"
        thread.join()
        monkeypatch.setattr("ray_serve_cai.upgrade.probe.TIMEOUT_S", 0.05)
        assert ask(Address("127.0.0.1", listener.getsockname()[1]), "/200") == "no answer in time"


def test_a_probe_follows_a_door_that_moves(door: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_serve_cai.upgrade.probe.INTERVAL_S", 0.01)
    now: list[Address | None] = [door]
    enough = threading.Event()

    def where() -> Address | None:
        if len(probe.samples) > 4:
            now[0] = None
        if len(probe.samples) > 9:
            enough.set()
        return now[0]

    probe = Probe(where, "/200")
    with probe:
        assert enough.wait(10)
    outcomes = [sample.outcome for sample in probe.samples]
    assert outcomes[:5] == [ANSWER] * 5
    assert outcomes[5:10] == [REFUSED] * 5
