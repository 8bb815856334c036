"""A model of the hub, fetched once by Compose's one-shot service; then a cluster serves it without a hub."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.containers import IMAGE, Cluster, run
from tests.hub import FakeHub, demo

pytestmark = pytest.mark.issue(6)
MODEL = "org/demo"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    """Where containers reach it: at the address that this machine has in Docker's default network."""
    gateway = run("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()
    with FakeHub(gateway) as made:
        made.add(MODEL, demo())
        yield made


@pytest.fixture(scope="module")
def cluster(hub: FakeHub) -> Iterator[Cluster]:
    """Not started; its volume is there from the first command on."""
    made = Cluster(workers=1, MODEL=MODEL, MODEL_NAME="demo", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    yield made
    made.compose("down", "--volumes", "--timeout", "2", check=False)


def fetch(cluster: Cluster, *options: str) -> tuple[str, list[str]]:
    """The one-shot's last line, and the lines of its progress."""
    done = cluster.compose("run", "--rm", "--no-TTY", "fetch", *options)
    return done.stdout.splitlines()[-1], done.stderr.splitlines()


def test_the_one_shot_service(cluster: Cluster, hub: FakeHub) -> None:
    commit = hub.repositories[MODEL].commit
    path = f"/var/lib/ray-serve-cai/huggingface/hub/models--org--demo/snapshots/{commit}"
    last, lines = fetch(cluster, MODEL)
    assert last == f"{path}: use it with HF_HUB_OFFLINE=1"
    assert lines[-1] == "verifying: 5 of 5 files right"
    sent = dict(hub.sent)
    assert sent == {name: len(content) for name, content in demo().items()}
    again = json.loads(fetch(cluster, MODEL, "--json")[0])
    assert again.pop("seconds") < 60
    assert again == {"model": MODEL, "revision": commit, "path": path, "bytes": sum(sent.values()), "downloaded_bytes": 0}
    assert hub.sent == sent
    assert fetch(cluster, "demo")[0] == "/opt/ray-serve-cai/models/demo: nothing is to be fetched"


@pytest.mark.full
def test_a_node_without_the_model_says_how_to_get_it() -> None:
    done = run("docker", "run", "--rm", "-e", f"RSCAI_MODEL={MODEL}", "-e", "HF_HUB_OFFLINE=1", "--shm-size", "256m", IMAGE, check=False)
    assert done.returncode == 66
    assert f"model '{MODEL}' is not in the cache and HF_HUB_OFFLINE is set; " in done.stderr
    assert done.stderr.endswith(f"or download it where the hub is reachable: ray-serve-cai fetch {MODEL}.\n")


@pytest.mark.full
def test_a_cluster_serves_it_without_a_hub(cluster: Cluster, hub: FakeHub, questions: dict[str, str]) -> None:
    fetch(cluster, MODEL)
    hub.stop()
    with cluster:
        cluster.api.wait_ready()
        asked = list(questions)[:3]
        assert [cluster.api.ask(question) for question in asked] == [questions[question] for question in asked]
        busy = cluster.worker_with_replica()
        assert run("docker", "exec", busy, "printenv", "HF_HUB_OFFLINE").stdout == "1\n"
