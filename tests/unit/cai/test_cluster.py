"""A cluster from the first plan to its end, with an emulated platform and emulated heads."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ray_serve_cai.cai import front
from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.cluster import Cluster
from ray_serve_cai.cai.config import CaiFile
from ray_serve_cai.cai.scale import counts, scaled
from ray_serve_cai.cai.settings import Settings
from ray_serve_cai.errors import PlatformRefusedError, UnavailableError, UsageError
from tests.fakes.cai.platform import KEY, PROJECT, Platform
from tests.unit.cai.conftest import HOST, IMAGE
from tests.unit.cai.test_apply import Clock
from tests.unit.cai.test_plan import there
from tests.unit.cai.test_plan import wanted as wanted_

pytestmark = pytest.mark.issue(9)
SETTINGS = Settings(HOST, SecretStr(KEY), PROJECT)
MODEL_KEY = "sk-of-the-models"


def wanted(**cai: Any) -> CaiFile:
    return wanted_(**({"runtime": IMAGE} | cai))


class Heads:
    """What nodes answer at their addresses, in order; the last answer stays."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(status, json=body) if not isinstance(body, str) else httpx.Response(status, text=body)


def health(status: str, phase: str, detail: str, alive: int = 3) -> tuple[int, Any]:
    return 200, {"status": status, "phase": phase, "phase_detail": detail, "nodes": {"alive": alive}, "models": [{"name": "demo"}]}


READY = health("ok", "ready", "every model answers")
Make = Callable[[Heads], Cluster]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(client: Client, said: list[str]) -> Make:
    clock = Clock()
    return lambda heads: Cluster(client, SETTINGS, said.append, transport=httpx.MockTransport(heads), clock=clock, sleep=clock.sleep)


def up(cluster: Cluster, what: CaiFile, **env: str) -> Any:
    return cluster.up(what, cluster.plan(what, env), 600)


def test_up_waits_until_the_models_answer_and_all_nodes_are_there(make: Make, said: list[str]) -> None:
    heads = Heads(
        (502, "bad gateway"), health("starting", "loading weights", "demo"), health("ok", "ready", "every model answers", 2), READY
    )
    reached = up(make(heads), wanted())
    assert reached.url == "https://m.ml.example.com"
    assert [one.name for one in reached.applications] == ["m-head", "m-gpu-1", "m-gpu-2"]
    assert reached.seen.models == ["demo"]
    assert "m-head: https://m.ml.example.com answers 502, and not as a head of ours" in said
    assert "m-head: loading weights: demo" in said
    assert "m: 2 of 3 nodes have joined" in said
    assert all("Authorization" not in request.headers for request in heads.asked)  # whoever can change an application could read it there


@pytest.mark.parametrize(("authentication", "sent"), [("platform", True), ("keys", False)])
def test_a_key_for_applications_is_sent_where_the_platform_asks(client: Client, authentication: str, sent: bool) -> None:
    heads, clock = Heads(READY), Clock()
    settings = dataclasses.replace(SETTINGS, application_key=SecretStr("of-applications"))
    cluster = Cluster(client, settings, lambda _: None, transport=httpx.MockTransport(heads), clock=clock, sleep=clock.sleep)
    up(cluster, wanted(authentication=authentication), VLLM_API_KEY=MODEL_KEY)
    asked = [request.headers.get("Authorization") for request in heads.asked if request.url.host == "m.ml.example.com"]
    assert set(asked) == {"Bearer of-applications" if sent else None}


def test_a_session_of_the_project_reads_what_the_head_writes(tmp_path: Path) -> None:
    told = tmp_path / "m.health.json"
    login = httpx.MockTransport(lambda _: httpx.Response(302))

    def status() -> str:
        return front.look(SETTINGS, "https://m.ml.example.com", platform_asks=True, told=told, transport=login).status

    assert status() == "unseen"
    told.write_text(json.dumps(READY[1]))
    assert status() == "ok"
    os.utime(told, (0, time.time() - front.FRESH_S - 5))
    assert status() == "unseen"
    told.write_text("{")
    assert status() == "unseen"


def test_behind_a_login_the_platforms_word_has_to_do(make: Make, said: list[str]) -> None:
    reached = up(make(Heads((302, ""))), wanted())
    assert reached.seen.status == "unseen"
    assert any("asks who you are" in line for line in said)


def test_a_head_that_cannot_serve_is_an_error_with_its_words_and_what_is_left(make: Make) -> None:
    with pytest.raises(PlatformRefusedError) as caught:
        up(make(Heads(health("failed", "failed", "models[0].source: missing."))), wanted())
    assert "the cluster cannot serve: models[0].source: missing." in str(caught.value)
    assert "What is there: m-head (running), m-gpu-1 (running), m-gpu-2 (running)" in str(caught.value)


def test_no_answer_in_time(make: Make) -> None:
    with pytest.raises(UnavailableError, match="m-head: its models do not answer yet"):
        up(make(Heads((502, "x"))), wanted())


def test_a_second_run_keeps_secrets_that_this_shell_does_not_have(make: Make, platform: Platform) -> None:
    cluster = make(Heads(READY))
    up(cluster, wanted(authentication="keys"), VLLM_API_KEY=MODEL_KEY)
    before = {one["name"]: dict(one["environment"]) for one in platform.applications.values()}
    again = cluster.plan(wanted(authentication="keys"), {})
    assert not again.changes
    assert {one["name"]: one["environment"] for one in platform.applications.values()} == before
    assert [step.action.value for step in cluster.plan(wanted(authentication="keys"), {"VLLM_API_KEY": "another"}).changes] == [
        "change"
    ] * 3


def test_no_secret_is_in_what_is_said_or_shown(make: Make, said: list[str], platform: Platform) -> None:
    cluster = make(Heads(READY))
    env = {"VLLM_API_KEY": MODEL_KEY, "HF_TOKEN": "hf_secret", "RSCAI_TOKEN": "c" * 32}
    made = cluster.plan(wanted(authentication="keys"), env)
    reached = cluster.up(wanted(authentication="keys"), made, 600)
    told = f"{made} {made!r} {made.as_dict()} {reached.as_dict()} {reached!r} {said} {SETTINGS!r} {platform.files}"
    for secret in (*env.values(), KEY):
        assert secret not in told


def test_down_leaves_nothing_and_says_how_many(make: Make, platform: Platform) -> None:
    cluster = make(Heads(READY))
    up(cluster, wanted())
    assert cluster.down("m", 60) == 3
    assert not platform.applications
    assert cluster.down("m", 60) == 0
    assert cluster.status("m").seen is None


def test_a_runtime_that_is_not_in_the_catalog_is_said_before_anything_is_made(make: Make, platform: Platform) -> None:
    with pytest.raises(PlatformRefusedError, match="'other' is not in the workspace's catalog; ray-serve-cai cai register-runtime other"):
        up(make(Heads(READY)), wanted(runtime="other"))
    assert not platform.applications


def test_groups_have_as_many_workers_as_are_there() -> None:
    both = wanted(workers={"a": {"count": 1}, "a-1": {"count": 3}})
    assert counts(both, there(both)) == {"a": 1, "a-1": 3}
    assert counts(both, []) == {}


def test_scaling_names_a_group_of_the_file() -> None:
    assert list(scaled(wanted(), {"gpu": 3}).cai.applications()) == ["m-head", "m-gpu-1", "m-gpu-2", "m-gpu-3"]
    with pytest.raises(UsageError, match=r"there is no group 'cpu'; the file's groups are: gpu\."):
        scaled(wanted(), {"cpu": 3})


@pytest.mark.parametrize("body", ["<html>", "[]", '{"status": "ok"}', "null"])
def test_whatever_answers_there(body: str) -> None:
    seen = front.look(
        SETTINGS, "https://m.ml.example.com", platform_asks=True, transport=httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    )
    assert seen.status == "silent"
    assert (seen.models, seen.nodes) == ([], 0)
