"""Workers that a head starts with the platform's Workers API."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from ray_serve_cai.cai import session_workers
from ray_serve_cai.cai.config import parse_section
from ray_serve_cai.cai.on_node import Application
from ray_serve_cai.cai.requests import WORKERS, Shared, wants
from ray_serve_cai.cai.session_workers import AGAIN_S, SessionWorkers, alive, describe, told
from ray_serve_cai.errors import ConfigError, UsageError
from tests.unit.cai.test_apply import Clock
from tests.unit.cai.test_plan import wanted as file

pytestmark = pytest.mark.issue(9)
SECTION = {"name": "m", "runtime": "r", "mode": "workers", "workers": {"gpu": {"count": 2, "cpu": 8, "memory": 64, "gpus": 1}}}


class Platform:
    """The module, as documented and as projects use it."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.refuse = ""

    def launch_workers(self, n: int, cpu: float, memory: float, nvidia_gpu: int, code: str, env: dict[str, str], name: str) -> list[Any]:
        if self.refuse:
            raise RuntimeError(self.refuse)
        id = f"w{len(self.sessions)}"
        self.sessions[id] = {"id": id, "name": name, "cpu": cpu, "memory": memory, "gpu": nvidia_gpu, "code": code, "env": env}
        return [{"id": id, "app_url": "https://x"}]

    def list_workers(self) -> list[Any]:
        return [{"id": id, "ip_address": "10.0.0.1"} for id, session in self.sessions.items() if not session.get("gone")]


def test_only_the_head_is_an_application() -> None:
    made = wants(file(mode="workers"), Shared("t" * 48))
    assert list(made) == ["m-head"]
    assert [one.name for one in told(made["m-head"].environment[WORKERS]).workers] == ["m-gpu-1", "m-gpu-2"]
    assert list(file(mode="workers").cai.applications()) == ["m-head"]


def test_they_are_as_their_head() -> None:
    group = {"gpu": {"count": 1, "runtime": "other"}}
    with pytest.raises(ConfigError, match="names a runtime or an accelerator"):
        parse_section(SECTION | {"workers": group}, "test")


def test_each_is_there_once_and_comes_back() -> None:
    platform, clock = Platform(), Clock()
    env = {
        "RSCAI_ROLE": "head",
        "RSCAI_TOKEN": "t" * 48,
        "RSCAI_CLUSTER": "m",
        "RSCAI_CONFIG": "/c",
        "CDSW_APIV2_KEY": "secret",
        "HF_HOME": "/x",
        "PATH": "/bin",
    }
    keeper = SessionWorkers(platform, told(describe(parse_section(SECTION | {"environment": {"HF_HOME": "/x"}}, "test"))), env, clock)
    keeper.step()
    keeper.step()
    assert [one["name"] for one in platform.sessions.values()] == ["m-gpu-1", "m-gpu-2"]
    first = platform.sessions["w0"]
    assert (first["cpu"], first["memory"], first["gpu"]) == (8, 64, 1)
    assert first["env"] == {
        "RSCAI_ROLE": "worker",
        "RSCAI_TOKEN": "t" * 48,
        "RSCAI_CLUSTER": "m",
        "RSCAI_CLUSTER_NODE": "m-gpu-1",
        "HF_HOME": "/x",
    }
    assert 'Popen(["ray-serve-cai", "cai", "node"])' in first["code"]
    platform.sessions["w1"]["gone"] = True
    keeper.step()
    assert len(platform.sessions) == 2  # not at once
    clock.sleep(AGAIN_S)
    keeper.step()
    assert [one["name"] for one in platform.sessions.values()] == ["m-gpu-1", "m-gpu-2", "m-gpu-2"]


def test_what_the_platform_refuses_is_said_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    platform, clock = Platform(), Clock()
    keeper = SessionWorkers(platform, told(describe(parse_section(SECTION | {"environment": {"HF_HOME": "/x"}}, "test"))), {}, clock)
    platform.refuse = "no quota for GPUs"
    keeper.step()
    assert "the Workers API failed: no quota for GPUs" in caplog.text
    platform.refuse = ""
    clock.sleep(AGAIN_S)
    keeper.step()
    assert len(platform.sessions) == 2


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], set()),
        (
            [{"id": "a"}, {"id": "b", "finished_at": "now"}, {"id": "c", "failed_at": "now"}, {"id": "d", "stopped_at": None}, 7, {}],
            {"a", "d"},
        ),
    ],
)
def test_which_of_them_live(listed: list[Any], expected: set[str]) -> None:
    assert alive(listed) == expected


def test_outside_the_platform_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"RSCAI_ROLE": "head", WORKERS: describe(parse_section(SECTION, "test"))}
    with pytest.raises(UsageError, match="use `applications`"):
        Application(env)
    monkeypatch.setitem(sys.modules, "cml", ModuleType("cml"))
    monkeypatch.setitem(sys.modules, session_workers.MODULE, Platform())  # type: ignore[arg-type]
    Application(env)
    with pytest.raises(UsageError, match="RSCAI_CLUSTER_WORKERS is 'x'"):
        Application(env | {WORKERS: "x"})
