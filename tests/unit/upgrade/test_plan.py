"""From what was seen to a plan, or to the reason why there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ray_serve_cai.errors import ConfigError, RayServeCaiError, ResourceError, UnavailableError, VersionMismatchError
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.upgrade import plan
from ray_serve_cai.upgrade.plan import Seen, Service

pytestmark = pytest.mark.issue(6)
OLD = Manifest(schema=1, build_id="one", protocol=1, ray="2.60.0", python="3.11.2", engine="vllm", engine_version="0.32.0", device="cpu")
OTHER = replace(OLD, build_id="two")


def service(name: str = "head", **changes: Any) -> Service:
    facts: dict[str, Any] = {
        "name": name,
        "role": name,
        "image": "cai:a",
        "image_id": "sha256:a",
        "contents": OLD,
        "target": "cai:b",
        "target_id": "sha256:b",
        "target_contents": OTHER,
        "running": 1,
        "containers": 1,
        "drain_s": 60,
    }
    return Service(**facts | changes)


STAYS = {"target": "cai:a", "target_id": "sha256:a", "target_contents": OLD}


def seen(*services: Service, **changes: Any) -> Seen:
    facts: dict[str, Any] = {
        "project": "shop",
        "image": "cai:b",
        "services": services or (service(), service("worker")),
        "started_with": "",
        "phase": "",
        "free_bytes": 1 << 40,
    }
    return Seen(**facts | changes)


@pytest.mark.parametrize(
    ("contents", "changes"),
    [
        pytest.param({"build_id": "two"}, ["build_id: one -> two"], id="another build"),
        pytest.param({"ray": "2.61.0"}, ["ray: 2.60.0 -> 2.61.0"], id="another ray"),
        pytest.param({"ray": "2.9.0"}, ["ray: 2.60.0 -> 2.9.0 (older)"], id="an older ray"),
        pytest.param({"protocol": 2}, ["protocol: 1 -> 2"], id="another protocol"),
        pytest.param({"python": "3.11.12"}, ["python: 3.11.2 -> 3.11.12"], id="another python"),
        pytest.param({"engine_version": "0.31.9"}, ["engine_version: 0.32.0 -> 0.31.9 (older)"], id="an older engine"),
        pytest.param({}, [], id="the same contents under another id"),
        pytest.param({"build_id": "0", "protocol": 0}, ["build_id: one -> 0", "protocol: 1 -> 0 (older)"], id="several"),
    ],
)
def test_changes(contents: dict[str, Any], changes: list[str]) -> None:
    new = replace(OLD, **contents)
    made = plan.make(seen(service(target_contents=new), service("worker", target_contents=new)))
    assert [str(change) for change in made.changes] == changes
    assert made.needed
    assert made.warnings == ()


def test_the_same_image_needs_nothing_even_in_a_cluster_that_is_not_ready() -> None:
    same = {"target_id": "sha256:a", "target_contents": OLD, "other_settings": ("RSCAI_MODEL",)}
    made = plan.make(seen(service(**same), service("worker", **same), phase="degraded: a model failed", free_bytes=0))
    assert not made.needed
    assert made.lines(600, rollback=True) == ["the cluster runs cai:b already; nothing to do"]


def test_a_half_done_upgrade_is_needed() -> None:
    done = {"image_id": "sha256:b", "contents": OTHER}
    assert plan.make(seen(service(**done), service("worker"))).needed


def test_as_many_containers_as_before() -> None:
    made = plan.make(seen(service(), service("worker", running=3, containers=3), service("spare", running=0, containers=2)))
    assert (made.head, made.others, made.scale, made.nodes) == ("head", ("worker",), (("worker", 3),), 4)
    assert made.warnings == ()


def test_a_single_node() -> None:
    made = plan.make(seen(service(role="single", drain_s=5)))
    assert (made.others, made.nodes) == ((), 1)
    assert made.lines(60, rollback=False) == [
        "from cai:a to cai:b",
        "changes build_id: one -> two",
        "1. import the engine once in a container of cai:b, while the cluster serves",
        "2. stop head: no new requests, those that run may take 5 s",
        "3. write IMAGE to the environment file, start head",
        "4. wait for 1 node and every model, at most 60 s",
    ]


def test_the_lines_of_a_cluster() -> None:
    assert plan.make(seen()).lines(60, rollback=True)[-3:] == [
        "3. end worker: without a head they serve nothing",
        "4. write IMAGE to the environment file, start head, worker",
        "5. wait for 2 nodes and every model, at most 60 s; otherwise bring cai:a back",
    ]


@pytest.mark.parametrize(
    ("services", "warning"),
    [
        pytest.param(
            (service(target_contents=replace(OTHER, engine="sglang")),),
            "the engine becomes sglang: a model that names vllm waits for a node that has it",
            id="engine",
        ),
        pytest.param((service(target_contents=replace(OTHER, device="cuda")),), "the image is made for cuda instead of cpu", id="device"),
        pytest.param((service(), service("other", **STAYS)), "other does not follow IMAGE: it stays on cai:a", id="one stays"),
        pytest.param(
            (service(), service("other", **STAYS | {"target_id": "sha256:c"})),
            "other does not follow IMAGE: it comes to what cai:a is now",
            id="one whose name has moved",
        ),
        pytest.param(
            (service(), service("worker", containers=2)), "1 stopped container of worker will be started as well", id="one is stopped"
        ),
    ],
)
def test_warnings(services: tuple[Service, ...], warning: str) -> None:
    assert plan.make(seen(*services)).warnings == (warning,)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        pytest.param(seen(service("worker")), UnavailableError, "no head of the project 'shop' runs here; ", id="no head"),
        pytest.param(seen(service(running=0)), UnavailableError, "no head of the project 'shop' runs here; ", id="a stopped head"),
        pytest.param(seen(service(**STAYS)), ConfigError, "the service 'head' has the image cai:a whatever IMAGE is; ", id="no variable"),
        pytest.param(
            seen(phase="loading weights: demo"),
            UnavailableError,
            "the cluster is not ready: loading weights: demo; wait for that, or give --allow-degraded.",
            id="not ready",
        ),
        pytest.param(
            seen(service(other_settings=("HF_TOKEN", "RSCAI_MODEL")), started_with="cpu.yaml,config.yaml"),
            ConfigError,
            "would change more than the image: head in HF_TOKEN, RSCAI_MODEL; ",
            id="other settings",
        ),
        pytest.param(
            seen(service(target_contents=replace(OTHER, ray="2.61.0")), service("other", **STAYS)),
            VersionMismatchError,
            "the service 'other' stays on cai:a with ray 2.60.0, and the new head has 2.61.0; ",
            id="who stays cannot join",
        ),
        pytest.param(
            seen(free_bytes=1 << 29),
            ResourceError,
            "Docker's disk has 0.5 GiB left, and 1.0 GiB are wanted; free some, for example with docker image prune.",
            id="a full disk",
        ),
    ],
)
def test_refusals(given: Seen, error: type[RayServeCaiError], message: str) -> None:
    with pytest.raises(error) as caught:
        plan.make(given)
    assert message in str(caught.value)
    assert type(caught.value) is error


def test_who_started_with_other_files_hears_which() -> None:
    with pytest.raises(ConfigError, match=r"The head was started with cpu\.yaml,config\.yaml\.$"):
        plan.make(seen(service(other_settings=("RSCAI_CONFIG",)), started_with="cpu.yaml,config.yaml"))


def test_a_degraded_cluster_where_that_is_allowed() -> None:
    assert plan.make(seen(phase="degraded: a model failed"), allow_degraded=True).needed
