"""What would keep a cluster from coming up."""

from __future__ import annotations

from typing import Any

import pytest

from ray_serve_cai.cai import catalog, doctor
from ray_serve_cai.cai.client import Client
from ray_serve_cai.errors import UsageError
from tests.fakes.cai.platform import Platform, Reply
from tests.unit.cai.conftest import IMAGE
from tests.unit.cai.test_plan import wanted

pytestmark = pytest.mark.issue(9)
LABEL = {"id": "7", "label_key": "nvidia.com/gpu.product", "label_value": "A100", "availability": True, "max_gpu_per_workload": "4"}


def found(client: Client, env: dict[str, str] | None = None, **cai: Any) -> dict[str, tuple[str, str, str]]:
    """The worst finding of each check."""
    order = ("ok", "skipped", "warning", "error")
    worst: dict[str, tuple[str, str, str]] = {}
    for one in doctor.examine(client, wanted(**({"runtime": IMAGE} | cai)), env or {}):
        if one.check not in worst or order.index(one.level) > order.index(worst[one.check][0]):
            worst[one.check] = (one.level, one.fact, one.fix)
    return worst


def test_all_is_well(client: Client, platform: Platform) -> None:
    platform.labels.append(LABEL)
    levels = {check: level for check, (level, _, _) in found(client).items()}
    assert levels == dict.fromkeys(levels, "ok") | {"network": "skipped"}


def test_without_a_way_in_nothing_else_is_asked(client: Client, platform: Platform) -> None:
    platform.fail(99, Reply(401, {"message": "no"}))
    assert list(found(client)) == ["access"]
    assert found(client)["access"][0] == "error"


def test_a_runtime_that_is_not_there_or_not_ours(client: Client, platform: Platform) -> None:
    level, fact, fix = found(client, runtime="registry.example.com/other:1")["runtime"]
    assert (level, fact) == ("error", "registry.example.com/other:1 is not in the catalog")
    assert fix == "ray-serve-cai cai register-runtime registry.example.com/other:1"
    platform.runtimes[0]["status"] = "DISABLED"
    assert found(client)["runtime"][1].endswith("is disabled")
    platform.runtimes[0] |= {"status": "ENABLED", "editor": "JupyterLab"}
    assert "for the editor 'JupyterLab'" in found(client)["runtime"][1]


@pytest.mark.parametrize(
    ("label", "node", "level", "words"),
    [
        ({}, {"gpus": 8}, "error", "8 GPUs asked for, and a workload gets 4 at most"),
        ({}, {"gpus": 1, "accelerator": "9"}, "error", "no GPU node label '9'"),
        ({"availability": False}, {"gpus": 1}, "error", "no node of that kind is available"),
        ({}, {"gpus": 4, "accelerator": "7"}, "ok", "4 of 4"),
    ],
)
def test_gpus(client: Client, platform: Platform, label: dict[str, Any], node: dict[str, Any], level: str, words: str) -> None:
    platform.labels.append(LABEL | label)
    seen = found(client, workers={"gpu": node})["gpus"]
    assert seen[0] == level
    assert words in seen[1]


def test_shared_memory(client: Client, platform: Platform) -> None:
    def shm(**cai: Any) -> tuple[str, str, str]:
        models = [{"source": "demo", "tensor_parallel_size": 2}]
        findings = doctor.examine(client, wanted(models, runtime=IMAGE, **cai), {})
        return next((one.level, one.fact, one.fix) for one in findings if one.check == "shm")

    assert shm() == ("error", "sessions have 64 MB of shared memory, and a model has 2 ranks", "cai.shared_memory_gb: 8")
    assert shm(shared_memory_gb=8)[1] == "sessions have 64 MB of shared memory; `up` raises it to 8192 MB"
    platform.shared_memory_mb = 16384
    assert shm()[:2] == ("ok", "sessions have 16384 MB of shared memory")


def test_a_name_that_another_application_has(client: Client, platform: Platform) -> None:
    platform.create_application({"name": "m-head", "subdomain": "x", "script": "a.py", "runtime_identifier": IMAGE})
    assert "an application named 'm-head' that is not the cluster's" in found(client)["names"][1]


def test_copies_that_an_upload_left(client: Client, platform: Platform) -> None:
    platform.files |= {"ray-serve-cai/launch.py": b"", "ray-serve-cai/launch(1).py": b""}
    assert found(client)["script"][:2] == ("warning", "ray-serve-cai has launch(1).py, which nothing reads")


def test_keys_need_the_sites_permission_and_a_key(client: Client) -> None:
    assert found(client, authentication="keys")["names"][0] == "error"
    seen = found(client, {"VLLM_API_KEY": "sk"}, authentication="keys")
    assert seen["names"][0] == "ok"
    assert seen["access"][0] == "skipped"
    assert "unauthenticated access" in seen["access"][2]


def test_one_question_that_fails_leaves_the_others(client: Client, platform: Platform) -> None:
    platform.fail(99, Reply(403, {"message": "only administrators"}), "GET", "/nodelabels")
    seen = found(client)
    assert seen["gpus"][0] == "warning"
    assert seen["shm"][0] == "ok"


def test_a_runtime_repo_file_has_numbers_where_numbers_belong() -> None:
    labels = {catalog.PREFIX + name: f"a {name}" for name in catalog.TEXTS} | {catalog.PREFIX + name: "2" for name in catalog.NUMBERS}
    made = catalog.repository("r/i:t", labels | {"other": "x"})
    (runtime,) = made["runtimes"]
    assert made["assembly_metadata_version"] == 1
    assert (runtime["image_identifier"], runtime["full_version"], runtime["maintenance_version"]) == ("r/i:t", "a full-version", 2)
    assert "cuda_version" not in runtime
    with pytest.raises(UsageError, match="use one whose name ends with -cai"):
        catalog.repository("r/i:t", {})
