"""A platform without sockets, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.settings import Settings
from tests.fakes.cai.platform import KEY, PROJECT, Platform, Reply

HOST = "https://ml.example.com"
IMAGE = "registry.example.com/ray-serve-cai:0.1.0-vllm0.32.0-cu130-cai"


def connection(platform: Platform) -> httpx.MockTransport:
    """Requests reach the platform's core as a server would hand them over."""

    def handle(request: httpx.Request) -> httpx.Response:
        url = str(request.url).removeprefix(HOST)
        return respond(platform.answer(request.method, url, request.headers, request.read()))

    return httpx.MockTransport(handle)


def respond(reply: Reply) -> httpx.Response:
    if isinstance(reply.body, str):
        return httpx.Response(reply.status, text=reply.body, headers=reply.headers)
    return httpx.Response(reply.status, json=reply.body, headers=reply.headers)


@pytest.fixture
def platform() -> Platform:
    return Platform(runtimes=[{"image_identifier": IMAGE, "editor": "PBJ Workbench", "kernel": "Python 3.11", "status": "ENABLED"}])


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(platform: Platform, slept: list[float]) -> Iterator[Client]:
    settings = Settings(HOST, SecretStr(KEY), PROJECT)
    with Client(settings, connection(platform), slept.append) as made:
        yield made
