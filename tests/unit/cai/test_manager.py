"""`CAIClusterManager`, as somebody's notebook uses it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ray_serve_cai.cai import CAIClusterManager
from ray_serve_cai.errors import ConfigError, UsageError
from tests.fakes.cai.platform import KEY, PROJECT, Platform
from tests.unit.cai.conftest import HOST, IMAGE, connection
from tests.unit.cai.test_cluster import READY

pytestmark = pytest.mark.issue(9)
SESSION = {"CDSW_DOMAIN": "ml.example.com", "CDSW_APIV2_KEY": KEY, "CDSW_PROJECT_ID": PROJECT}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def manager(platform: Platform, said: list[str]) -> CAIClusterManager:
    api = connection(platform)

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host == "ml.example.com":
            return api.handle_request(request)
        return httpx.Response(READY[0], json=READY[1])

    return CAIClusterManager(env=SESSION, say=said.append, transport=httpx.MockTransport(handle))


def test_start_look_and_stop(manager: CAIClusterManager, platform: Platform, said: list[str]) -> None:
    made = manager.start_cluster(2, 8, 64, 1, head_cpu=2, head_memory=8, runtime_identifier=IMAGE)
    sizes = {one["name"]: (one["cpu"], one["memory"], one["nvidia_gpu"], one["status"]) for one in made["applications"]}
    assert sizes == {
        "ray-serve-head": (2, 8, 0, "running"),
        "ray-serve-worker-1": (8, 64, 1, "running"),
        "ray-serve-worker-2": (8, 64, 1, "running"),
    }
    assert made["url"] == f"{HOST.replace('://', '://ray-serve.')}"
    assert made["head"]["status"] == "ok"
    assert manager.get_status() == made
    assert KEY not in f"{made}{said}"
    assert manager.stop_cluster() == 3
    assert manager.get_status() == {"name": "ray-serve", "url": made["url"], "ready": False, "applications": [], "head": None}
    assert not platform.applications


def test_each_role_may_have_its_runtime(manager: CAIClusterManager, platform: Platform) -> None:
    other = IMAGE + "-other"
    platform.runtimes.append({"image_identifier": other, "status": "ENABLED"})
    manager.start_cluster(runtime_identifier=IMAGE, worker_runtime_identifier=other, wait_ready=False)
    assert {one["name"]: one["runtime_identifier"] for one in platform.applications.values()} == {
        "ray-serve-head": IMAGE,
        "ray-serve-worker-1": other,
    }


def test_a_session_of_ours_needs_no_runtimes_name(platform: Platform, said: list[str]) -> None:
    own = {"editor": "PBJ Workbench", "edition": "Ray Serve vLLM CUDA", "kernel": "Python 3.11", "full_version": "2026.11.1"}
    platform.runtimes[:] = [{"image_identifier": "other", **own, "full_version": "2026.10.1"}, {"image_identifier": IMAGE, **own}]
    env = SESSION | {f"ML_RUNTIME_{name.upper()}": value for name, value in own.items()}
    manager = CAIClusterManager(env=env, say=said.append, transport=connection(platform))
    made = manager.start_cluster(wait_ready=False)
    assert {one["runtime_identifier"] for one in made["applications"]} == {IMAGE}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({}, UsageError, "no runtime is named"),
        ({"runtime_identifier": IMAGE, "num_workers": -1}, ConfigError, r"start_cluster: cai\.workers\.worker\.count: -1"),
        ({"runtime_identifier": IMAGE, "models": [{"sourcs": "x"}]}, ConfigError, "start_cluster: models"),
        ({"runtime_identifier": IMAGE, "authentication": "keys"}, UsageError, "set VLLM_API_KEY"),
        ({"runtime_identifier": IMAGE, "models": ["demo"]}, ConfigError, r"start_cluster: models\[0\]: 'demo'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    manager: CAIClusterManager, platform: Platform, given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        manager.start_cluster(**given)
    assert not platform.applications


def test_a_name_that_cannot_be_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"CAIClusterManager: cai\.name: 'My Cluster!'"):
        CAIClusterManager(name="My Cluster!", env=SESSION)
