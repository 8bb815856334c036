"""The client against the emulated API: calls, pages, retries, and each way in which a request can fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ray_serve_cai.cai import retry
from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.models import ApplicationRequest, Status
from ray_serve_cai.cai.settings import Settings
from ray_serve_cai.errors import (
    PlatformAccessError,
    PlatformDownError,
    PlatformError,
    PlatformMissingError,
    PlatformRefusedError,
    RayServeCaiError,
)
from tests.fakes.cai.platform import KEY, PROJECT, Platform, Reply
from tests.unit.cai.conftest import HOST, IMAGE

pytestmark = pytest.mark.issue(9)


def request(number: int = 0, **changes: Any) -> ApplicationRequest:
    given = {
        "name": f"node {number}",
        "subdomain": f"node-{number}",
        "script": "start.py",
        "cpu": 4,
        "memory": 16,
        "runtime_identifier": IMAGE,
    }
    return ApplicationRequest(**(given | changes))


def error(status: int, text: str = "no") -> Reply:
    return Reply(status, {"error": text, "code": 13, "message": text, "details": []})


def test_an_application_from_beginning_to_end(client: Client, platform: Platform) -> None:
    made = client.create_application(request(nvidia_gpu=2, environment={"RSCAI_ROLE": "head"}))
    assert (made.status, made.nvidia_gpu, made.environment) == (Status.RUNNING, 2, {"RSCAI_ROLE": "head"})
    assert client.application(made.id).status is Status.RUNNING
    assert client.update_application(made.id, request(cpu=8)).cpu == 8
    client.stop_application(made.id)
    assert client.application(made.id).status is Status.STOPPED
    client.restart_application(made.id)
    assert client.application(made.id).status.word == "running"
    client.delete_application(made.id)
    client.delete_application(made.id)
    assert client.applications() == []
    paths = [path.removeprefix(f"/api/v2/projects/{PROJECT}/applications") for method, path in platform.requests if method == "POST"]
    assert paths == ["", f"/{made.id}:stop", f"/{made.id}:restart"]


def test_the_projects_environment_is_copied(client: Client, platform: Platform) -> None:
    platform.project_environment = {"SITE": "here", "RSCAI_ROLE": "auto"}
    assert client.create_application(request(environment={"RSCAI_ROLE": "head"})).environment == {"SITE": "here", "RSCAI_ROLE": "head"}


def test_all_of_250_applications_are_listed(client: Client, platform: Platform) -> None:
    for number in range(250):
        client.create_application(request(number))
    platform.requests.clear()
    assert [one.name for one in client.applications()] == [f"node {number}" for number in range(250)]
    assert len(platform.requests) == 5


def test_files_are_replaced(client: Client, platform: Platform) -> None:
    client.upload("ray-serve-cai/launch.py", b"one")
    client.upload("ray-serve-cai/launch.py", b"two\r\n--two")
    client.upload("other.txt", b"")
    assert platform.files == {"ray-serve-cai/launch.py": b"two\r\n--two", "other.txt": b""}
    assert [(file.path, file.file_size) for file in client.files("ray-serve-cai")] == [("ray-serve-cai/launch.py", 10)]
    client.delete_file("ray-serve-cai/launch.py")
    client.delete_file("ray-serve-cai/launch.py")
    assert [file.path for file in client.files()] == ["other.txt"]


def test_the_project_its_runtimes_and_gpus(client: Client, platform: Platform) -> None:
    platform.labels = [
        {"id": "7", "label_key": "nvidia.com/gpu.product", "label_value": "L40S", "availability": True, "max_gpu_per_workload": "4"}
    ]
    assert client.update_project({"shared_memory_limit": 8192}).shared_memory_limit == 8192
    assert client.project().default_project_engine_type == "ml_runtime"
    assert [one.image_identifier for one in client.runtimes()] == [IMAGE]
    assert (client.node_labels()[0].id, client.node_labels()[0].max_gpu_per_workload) == ("7", 4)
    assert client.validate_runtime("registry.example.com/a:b").validation_success
    assert client.validate_runtime("nowhere/a:b").reason == "the image cannot be pulled"
    with pytest.raises(PlatformAccessError, match="only administrators may add runtimes"):
        client.register_runtime("registry.example.com/a:b")
    platform.administrator = True
    assert client.register_runtime("registry.example.com/a:b", "42").insert_success
    assert client.register_runtime("registry.example.com/a:b").reason == "the runtime is registered already"


CALLS: dict[str, Callable[[Client], object]] = {
    "list": lambda client: client.applications(),
    "get": lambda client: client.application("app-1"),
    "create": lambda client: client.create_application(request()),
    "change": lambda client: client.update_application("app-1", request()),
    "restart": lambda client: client.restart_application("app-1"),
    "delete": lambda client: client.delete_application("app-1"),
}
METHODS = {"list": "GET", "get": "GET", "create": "POST", "change": "PATCH", "restart": "POST", "delete": "DELETE"}
STATUSES: dict[int, tuple[type[RayServeCaiError], str]] = {
    302: (PlatformAccessError, "was sent on to 'https://login.example.com' .302.: a login page"),
    400: (PlatformRefusedError, "was refused .400.: no; change what is asked for"),
    401: (PlatformAccessError, "was refused .401.: no; make a new API v2 key"),
    403: (PlatformAccessError, "was refused .403.: no; use the key of someone who may"),
    404: (PlatformMissingError, "was refused .404.: no; check the project id"),
    405: (PlatformRefusedError, "was refused .405.: no"),
    409: (PlatformRefusedError, "was refused .409.: no; choose another name"),
    412: (PlatformRefusedError, "was refused .412.: no"),
    422: (PlatformRefusedError, "was refused .422.: no"),
    429: (PlatformDownError, "was answered with 429, 6 times: no; ask for less at a time"),
    500: (PlatformDownError, "was answered with 500{tried}: no; try again"),
    501: (PlatformDownError, "was answered with 501: no"),
    502: (PlatformDownError, "was answered with 502{tried}: no"),
    503: (PlatformDownError, "was answered with 503{tried}: no"),
    504: (PlatformDownError, "was answered with 504{tried}: no"),
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("call", CALLS)
def test_each_status_of_each_call(client: Client, platform: Platform, slept: list[float], call: str, status: int) -> None:
    reply = error(status)
    reply.headers["Location"] = "https://login.example.com"
    platform.fail(100, reply)
    if (call, status) == ("delete", 404):
        CALLS[call](client)
        return
    repeated = status == 429 or (status in retry.PASSING and (METHODS[call] != "POST" or call == "restart"))
    kind, words = STATUSES[status]
    with pytest.raises(kind) as caught:
        CALLS[call](client)
    said = str(caught.value)
    assert re.search(words.format(tried=", 6 times" if repeated else ""), said), said
    assert said.startswith(f"{METHODS[call]} {HOST}/api/v2/projects/{PROJECT}/applications")
    assert len(platform.requests) == (retry.ATTEMPTS if repeated else 1)
    assert len(slept) == len(platform.requests) - 1
    assert "\n" not in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subdomain": "taken"}, "subdomain taken is already in use"),
        ({"name": "taken"}, "an application named taken already exists"),
        ({"runtime_identifier": "nobody/knows:it"}, "runtime nobody/knows:it is not registered"),
    ],
)
def test_what_the_platform_refuses_is_told_in_its_words(client: Client, changes: dict[str, str], words: str) -> None:
    client.create_application(request(name="taken", subdomain="taken"))
    with pytest.raises(PlatformRefusedError, match=words):
        client.create_application(request(1, **changes))


@pytest.mark.parametrize("subdomain", ["", "-a", "a-", "a--b", "A", "a.b", "a_b", "ä", "a" * 64])
def test_a_subdomain_that_is_none_is_not_sent(subdomain: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a host name"):
        request(subdomain=subdomain)


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ({"kernel": "Python 3.11"}, "kernel and runtime_identifier cannot both be set"),
        ({"gpus": 1}, 'unknown field "gpus"'),
        ({"cpu": "4"}, 'field "cpu" has the wrong type'),
        ({"nvidia_gpu": True}, 'field "nvidia_gpu" has the wrong type'),
        ({"environment": {"A": 1}}, 'field "environment" has the wrong type'),
        ({"subdomain": "a--b"}, "subdomain is invalid; use lower-case letters, digits and dashes"),
        ({"script": ""}, "script is required"),
    ],
)
def test_the_emulator_is_strict(client: Client, body: dict[str, Any], reply: str) -> None:
    with pytest.raises(PlatformRefusedError, match=re.escape(reply)):
        client.ask("POST", f"/api/v2/projects/{PROJECT}/applications", request().body() | body)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", f"/api/v2/projects/{PROJECT}/applications/app-0001/restart", PlatformMissingError),
        ("GET", f"/api/v2/projects/{PROJECT}/applications?page_size=101", PlatformRefusedError),
        ("GET", f"/api/v2/projects/{PROJECT}/applications?limit=5", PlatformRefusedError),
        ("GET", "/api/v2/projects/another/applications", PlatformMissingError),
        ("DELETE", f"/api/v2/projects/{PROJECT}", PlatformRefusedError),
    ],
)
def test_the_emulator_knows_only_what_there_is(client: Client, method: str, path: str, kind: type[PlatformError]) -> None:
    with pytest.raises(kind):
        client.ask(method, path)


def test_a_burst_of_429_is_waited_out_as_it_asks(client: Client, platform: Platform, slept: list[float]) -> None:
    reply = error(429)
    reply.headers["Retry-After"] = "7"
    platform.fail(2, reply)
    client.create_application(request())
    assert slept == [7.0, 7.0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3),
        ({"Retry-After": "4000"}, retry.LONGEST_S),
        ({"Retry-After": "Thu, 26 Nov 2026 10:00:09 GMT", "Date": "Thu, 26 Nov 2026 10:00:00 GMT"}, 9),
        ({"Retry-After": "Thu, 26 Nov 2026 09:00:00 GMT", "Date": "Thu, 26 Nov 2026 10:00:00 GMT"}, 0),
    ],
)
def test_pauses_that_the_platform_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert retry.again(twice=True, attempt=1, outcome=httpx.Response(503, headers=headers)) == seconds


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "Thu, 26 Nov 2026 10:00:09 GMT"}])
def test_other_pauses_grow(headers: dict[str, str]) -> None:
    pauses = [
        retry.again(twice=True, attempt=attempt, outcome=httpx.Response(503, headers=headers)) for attempt in range(1, retry.ATTEMPTS + 1)
    ]
    assert pauses.pop() is None
    for attempt, pause in enumerate(pauses):
        assert pause is not None
        assert 0.25 * 2**attempt <= pause <= 0.5 * 2**attempt


@pytest.mark.parametrize(
    ("method", "problem", "attempts"),
    [
        ("GET", httpx.ReadTimeout("timed out"), retry.ATTEMPTS),
        ("GET", httpx.ConnectError("[Errno -2] Name or service not known"), 1),
        ("DELETE", httpx.RemoteProtocolError("server disconnected"), retry.ATTEMPTS),
        ("POST", httpx.ConnectError("connection refused"), retry.ATTEMPTS),
        ("POST", httpx.ReadTimeout("timed out"), 1),
        ("POST", httpx.RemoteProtocolError("server disconnected"), 1),
    ],
)
def test_no_answer(method: str, problem: httpx.TransportError, attempts: int) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        raise problem

    settings = Settings(HOST, SecretStr(KEY), PROJECT)
    with (
        Client(settings, httpx.MockTransport(handle), lambda _: None) as client,
        pytest.raises(PlatformDownError, match=re.escape(str(problem))),
    ):
        client.ask(method, "/api/v2/projects")
    assert len(asked) == attempts


def test_a_certificate_that_is_not_trusted_names_the_fix() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")

    settings = Settings(HOST, SecretStr(KEY), PROJECT)
    with (
        Client(settings, httpx.MockTransport(handle), lambda _: None) as client,
        pytest.raises(PlatformDownError, match="name its authorities in REQUESTS_CA_BUNDLE"),
    ):
        client.project()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, "<html>Sign in</html>"), "gave '<html>Sign in</html>' and no JSON; is the address that of the workspace"),
        (Reply(200, [1]), "and no JSON"),
        (Reply(200, {"applications": [{"name": "without an id"}]}), "no Application: id: Field required"),
        (Reply(200, {"applications": [{"id": "1", "name": "a", "nvidia_gpu": "many"}]}), "no Application: nvidia_gpu"),
        (Reply(200, {"applications": [{"id": "1", "name": "a", "environment": "{"}]}), "no Application: environment"),
        (Reply(200, {"applications": [], "next_page_token": "again"}), "gave the page 'again' twice"),
    ],
)
def test_an_answer_that_cannot_be_read(client: Client, platform: Platform, reply: Reply, words: str) -> None:
    platform.fail(100, reply)
    with pytest.raises(PlatformError, match=re.escape(words)):
        client.applications()


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("APPLICATION_RUNNING", Status.RUNNING),
        ("running", Status.RUNNING),
        ("APPLICATION_FAILED", Status.FAILED),
        ("APPLICATION_PAUSED", Status.UNKNOWN),
        ("", Status.UNKNOWN),
    ],
)
def test_statuses(client: Client, platform: Platform, told: str, status: Status) -> None:
    platform.fail(1, Reply(200, {"applications": [{"id": 5, "name": "a", "status": told, "environment": {"A": 1}, "new_field": {}}]}))
    (application,) = client.applications()
    assert (application.id, application.status, application.environment) == ("5", status, {"A": "1"})


def test_the_key_is_nowhere(client: Client, platform: Platform) -> None:
    platform.fail(1, error(400, f"bad header Authorization: Bearer {KEY}"))
    with pytest.raises(PlatformRefusedError, match=r"Bearer \*\*\*") as caught:
        client.project()
    assert KEY not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    settings = Settings(HOST, SecretStr(KEY), PROJECT)
    assert KEY not in repr(settings) + str(settings) + repr(vars(client))


@pytest.mark.parametrize(
    "answer",
    [
        {"applications": 5},
        {"applications": [{"id": "1", "name": "x", "environment": "[]"}]},
        {"applications": [{"id": "1", "name": "x", "environment": "{"}]},
    ],
)
def test_lists_that_are_none(client: Client, platform: Platform, answer: Any) -> None:
    platform.fail(1, Reply(200, answer))
    with pytest.raises(PlatformError, match="is the workspace newer or older than"):
        client.applications()


def test_null_is_not_said(client: Client, platform: Platform) -> None:
    platform.fail(1, Reply(200, {"applications": [{"id": "1", "name": "x", "running_at": None, "environment": None, "nvidia_gpu": None}]}))
    (one,) = client.applications()
    assert (one.running_at, one.environment, one.nvidia_gpu) == ("", {}, 0)


def test_a_copy_that_a_lost_answer_left_is_overwritten(client: Client, platform: Platform) -> None:
    def lost(method: str, path: str) -> Reply | None:
        if (method, path.rpartition("/")[2]) == ("POST", "files") and len(platform.requests) == 2:
            platform.files["a/b.txt"] = b"half"
            return Reply(502, "Bad Gateway")
        return None

    platform.faults.append(lost)
    client.upload("a/b.txt", b"whole")
    assert platform.files == {"a/b.txt": b"whole"}
