"""Who may join, who is refused and how that reads, and what a cluster does when the network or a node goes away."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers import IMAGE, ROOT, Cluster, Load, Streams, run, until

pytestmark = pytest.mark.issue(6)
QUESTION = "What is ray-serve-cai?"
OLDER_RAY = "2.59.0"
MANIFEST = "/opt/ray-serve-cai/manifest.json"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=1) as started:
        started.api.wait_ready()
        yield started


class Stranger:
    """A further worker for a cluster's network, started as somebody else would; removed at the end."""

    def __init__(self, cluster: Cluster, *options: str, volume: bool = True, image: str = IMAGE, command: tuple[str, ...] = ()) -> None:
        network = ("--network", f"{cluster.project}_default", "--shm-size", "256m")
        token = ("--volume", f"{cluster.project}_state:/var/lib/ray-serve-cai") if volume else ()
        given = ("-e", "RSCAI_ROLE=worker", "-e", "RSCAI_HEAD_ADDRESS=head", *options)
        self.id = run("docker", "run", "--detach", *network, *token, *given, image, *command).stdout.strip()

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        run("docker", "rm", "--force", "--volumes", self.id)

    def logs(self) -> str:
        done = run("docker", "logs", self.id)
        return done.stdout + done.stderr

    def state(self, what: str) -> str:
        return run("docker", "inspect", "--format", f"{{{{.State.{what}}}}}", self.id).stdout.strip()

    def health(self) -> dict[str, Any]:
        return dict(json.loads(run("docker", "exec", self.id, "ray-serve-cai", "health", "--json", check=False).stdout or "{}"))


def alive(cluster: Cluster) -> int:
    return int(cluster.api.health()["nodes"]["alive"])


def refused(stranger: Stranger, said: str, timeout: float = 90) -> None:
    """It stays up, does not say that it is ready, and says why; who waits for it hears so at once."""
    until("refused", lambda: stranger.health().get("phase") == "refused", timeout)
    assert said in stranger.health()["detail"]
    assert f"refused: {said}" in stranger.logs() or said in stranger.logs()
    assert "Trying again in 60 s." in stranger.logs()
    assert run("docker", "exec", stranger.id, "ray-serve-cai", "health", check=False).returncode == 69
    waited = run("docker", "exec", stranger.id, "ray-serve-cai", "status", "--wait", "--timeout", "20", check=False)
    assert waited.returncode == 70
    assert said in waited.stderr
    assert stranger.state("Running") == "true"


def test_with_the_token_in_a_file(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(run("docker", "exec", cluster.ids("head")[0], "cat", "/var/lib/ray-serve-cai/token").stdout + "\n")
    file.chmod(0o644)
    with Stranger(cluster, "-v", f"{file}:/run/secrets/token:ro", "-e", "RSCAI_TOKEN_FILE=/run/secrets/token", volume=False) as worker:
        until("three nodes", lambda: alive(cluster) == 3, 60)
        assert file.read_text().strip() not in worker.logs()
    until("two nodes", lambda: alive(cluster) == 2, 60)


@pytest.mark.full
def test_another_token_is_refused_until_it_is_put_right(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with Stranger(cluster, "-e", "RSCAI_TOKEN=0123456789abcdef", volume=False) as worker:
        refused(worker, "refused this node's token; give all nodes the same RSCAI_TOKEN or RSCAI_TOKEN_FILE")
    wrong = "0123456789abcdef"
    file.write_text(wrong)
    file.chmod(0o666)
    mounted = ("-v", f"{tmp_path}:/var/lib/ray-serve-cai")
    tmp_path.chmod(0o777)
    with Stranger(cluster, *mounted, volume=False) as worker:
        refused(worker, "refused this node's token")
        file.write_text(run("docker", "exec", cluster.ids("head")[0], "cat", "/var/lib/ray-serve-cai/token").stdout)
        until("it joins by itself", lambda: alive(cluster) == 3, 100)
        until("it knows", lambda: worker.health()["phase"] == "joined", 30)
    until("two nodes", lambda: alive(cluster) == 2, 60)


@pytest.mark.full
@pytest.mark.parametrize(("key", "other"), [("python", "3.11.1"), ("protocol", 0)])
def test_another_version_is_refused(cluster: Cluster, tmp_path: Path, key: str, other: object) -> None:
    found = json.loads(run("docker", "run", "--rm", "--entrypoint", "cat", IMAGE, MANIFEST).stdout)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(found | {key: other}))
    file.chmod(0o644)
    said = f"this node has {key} {other} and the head has {found[key]}; start both from images of the same release."
    with Stranger(cluster, "-v", f"{file}:{MANIFEST}:ro") as worker:
        refused(worker, said)
    with Stranger(cluster, "-v", f"{file}:{MANIFEST}:ro", command=("ray-serve-cai", "node", "--once")) as worker:
        assert run("docker", "wait", worker.id, timeout=60).stdout.strip() == "78"
        assert f"ray-serve-cai: error: {said}" in worker.logs()


DOWNGRADE = """
FROM {image}
USER root
COPY . /build
RUN cd /build && rm -rf {site}/ray {site}/ray-*.dist-info && python3 -m zipfile -e ray-*.whl {site} && \\
    python3 manifest.py versions.json vllm-cpu engine {site}/ray_serve_cai > made.json && mv made.json {manifest} && rm -rf /build
USER {user}
"""


@pytest.fixture
def older(tmp_path: Path) -> Iterator[str]:
    """A second image, which really has another Ray."""
    versions = json.loads((ROOT / "images/versions.json").read_text())
    versions["images"]["vllm-cpu"]["packages"]["ray"] = OLDER_RAY
    (tmp_path / "versions.json").write_text(json.dumps(versions))
    (tmp_path / "manifest.py").write_text((ROOT / "images/manifest.py").read_text())
    wanted = (f"ray=={OLDER_RAY}", "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--dest", str(tmp_path))
    run(sys.executable, "-m", "pip", "download", "--quiet", *wanted, timeout=300)
    user = run("docker", "image", "inspect", "--format", "{{.Config.User}}", IMAGE).stdout.strip()
    site = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages"
    (tmp_path / "Dockerfile").write_text(DOWNGRADE.format(image=IMAGE, site=site, manifest=MANIFEST, user=user))
    name = "rscai-test:another-ray"
    run("docker", "build", "--quiet", "--tag", name, str(tmp_path), timeout=300)
    yield name
    run("docker", "image", "rm", "--force", name)


@pytest.mark.full
def test_an_image_with_another_ray_is_refused(cluster: Cluster, older: str) -> None:
    with Stranger(cluster, image=older) as worker:
        refused(worker, f"this node has ray {OLDER_RAY} and the head has ")
        assert "start both from images of the same release" in worker.health()["detail"]
    assert alive(cluster) == 2


@pytest.mark.full
def test_another_build_joins(cluster: Cluster, tmp_path: Path) -> None:
    found = json.loads(run("docker", "run", "--rm", "--entrypoint", "cat", IMAGE, MANIFEST).stdout)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(found | {"build_id": "another", "engine_version": "0.0.1"}))
    file.chmod(0o644)
    with Stranger(cluster, "-v", f"{file}:{MANIFEST}:ro") as worker:
        until("three nodes", lambda: alive(cluster) == 3, 60)
        assert "this node is build another and the head is build" in worker.logs()
    until("two nodes", lambda: alive(cluster) == 2, 60)


@pytest.mark.full
def test_the_address_of_another_node_is_refused(cluster: Cluster) -> None:
    taken = cluster.ip(cluster.ids("worker")[0])
    with Stranger(cluster, "-e", f"RSCAI_NODE_IP={taken}") as worker:
        refused(worker, f"this node's address is {taken}, and the cluster has a living node with that address")
    assert alive(cluster) == 2
    assert cluster.api.is_ready()


@pytest.mark.full
def test_a_node_without_the_model(tmp_path: Path, questions: dict[str, str]) -> None:
    """It is told so before Ray places anything on it, by itself and by the head; and it joins once the model is there."""
    model, empty = Path(shutil.copytree(ROOT / "images/demo/model", tmp_path / "model")), tmp_path / "empty"
    empty.mkdir()
    for folder in (tmp_path, model, empty):
        folder.chmod(0o755)
    with Cluster(0, MODEL="/models", MODEL_NAME="demo", MODEL_MOUNT=str(model)) as cluster:
        cluster.api.wait_ready()
        with Stranger(cluster) as worker:
            said = "model path '/models' does not exist on this node; mount it at the same path on every node."
            refused(worker, said)
            assert list(cluster.api.health()["nodes"]["refused"].values()) == [said]
            assert alive(cluster) == 1
        with Stranger(cluster, command=("ray-serve-cai", "node", "--once")) as worker:
            assert run("docker", "wait", worker.id, timeout=60).stdout.strip() == "66"
        with Stranger(cluster, "-v", f"{empty}:/models:ro") as worker:
            refused(worker, "model path '/models' holds no config.json")
            examined = run("docker", "exec", worker.id, "ray-serve-cai", "doctor", check=False)
            assert examined.returncode == 71
            assert examined.stdout.splitlines()[-1] == "this node cannot serve: models of the head"
            shutil.copytree(model, empty, dirs_exist_ok=True)
            until("it joins by itself", lambda: alive(cluster) == 2, 100)
        assert cluster.api.ask(QUESTION) == questions[QUESTION]


@pytest.mark.full
def test_no_head(cluster: Cluster) -> None:
    with Stranger(cluster, "-e", "RSCAI_HEAD_ADDRESS=nobody", "-e", "RSCAI_JOIN_TIMEOUT_S=35") as worker:
        assert run("docker", "wait", worker.id, timeout=90).stdout.strip() == "69"
        assert "ray-serve-cai: error: no head at nobody:6379 after 35 s; last seen: " in worker.logs()
        assert "waiting for the head at nobody:6379 since 3" in worker.logs()  # every 30 s


@pytest.mark.full
def test_a_killed_worker_under_streams(cluster: Cluster) -> None:
    """Its streams are cut, and no others; the cluster serves again without it."""
    until("a worker has the model", lambda: any(node["replicas"] and node["role"] == "worker" for node in cluster.nodes()), 60)
    victim = cluster.worker_with_replica()
    with Streams(cluster.api, 8) as streams:
        until("streams", lambda: len(streams.whole) > 16, 60)
        run("docker", "kill", "--signal", "KILL", victim)
        killed = time.monotonic()
        until("streams again", lambda: streams.whole[-1:] > [killed + 2], 120)
        again = next(moment for moment in streams.whole if moment > killed + 2) - killed
    print(f"SIGKILL of the worker under 8 streams: {len(streams.cut)} cut or refused, the first whole stream after {again:.1f} s")
    run("docker", "start", victim)
    until("it is back", lambda: alive(cluster) == 2, 90)


@pytest.mark.full
def test_a_stopped_worker_with_open_streams() -> None:
    """All of sixteen streams end, and what comes after them is served elsewhere: no client sees an error."""
    with Cluster(workers=1, DRAIN_S="200", STOP_GRACE="240s") as cluster:
        cluster.api.wait_ready()
        victim = cluster.worker_with_replica()
        with Streams(cluster.api, 16) as streams:
            until("streams", lambda: len(streams.whole) >= 16, 120)
            start = time.monotonic()
            run("docker", "stop", "--time", "240", victim, timeout=260)
            stopped = time.monotonic()
            until("streams afterwards", lambda: streams.whole[-1:] > [stopped + 2], 120)
        assert streams.cut == []
        assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", victim).stdout.strip() == "0"
        print(f"SIGTERM of the worker under 16 streams: gone after {stopped - start:.1f} s, {len(streams.whole)} whole, none cut")


@pytest.mark.full
def test_a_killed_head_under_streams(cluster: Cluster, questions: dict[str, str]) -> None:
    """Workers see that the next head is another one, leave and come back."""
    head = cluster.ids("head")[0]
    with Streams(cluster.api, 8) as streams:
        until("streams", lambda: len(streams.whole) > 16, 60)
        run("docker", "kill", "--signal", "KILL", head)
        killed = time.monotonic()
        run("docker", "start", head)  # its restart policy takes a kill by `docker kill` for a stop
        until("two nodes", lambda: alive(cluster) == 2, 180)
        joined = time.monotonic() - killed
        until("streams again", lambda: streams.whole[-1:] > [killed + 10], 180)
        again = next(moment for moment in streams.whole if moment > killed + 10) - killed
    print(f"SIGKILL of the head under 8 streams: the worker was back after {joined:.1f} s, the first whole stream after {again:.1f} s")
    cluster.api.wait_ready()
    assert cluster.api.ask(QUESTION) == questions[QUESTION]


@pytest.mark.full
def test_a_partition_heals(cluster: Cluster, questions: dict[str, str]) -> None:
    """A minute without network: the cluster goes on without the node, which leaves, and comes back by its restart policy."""
    worker = cluster.ids("worker")[0]
    process = run("docker", "inspect", "--format", "{{.State.Pid}}", worker).stdout.strip()
    rules = [("nsenter", "-t", process, "-n", "iptables", "-I", chain, "-j", "DROP") for chain in ("INPUT", "OUTPUT")]
    for rule in rules:
        run(*rule)
    cut = time.monotonic()
    until("the cluster goes on alone", lambda: alive(cluster) == 1, 60)
    noticed = time.monotonic() - cut
    until("it serves", cluster.api.is_ready, 120)
    serving = time.monotonic() - cut
    time.sleep(max(60 - (time.monotonic() - cut), 0))  # the fault itself
    current = run("docker", "inspect", "--format", "{{.State.Pid}}", worker).stdout.strip()
    for rule in rules if current == process else []:
        run(*("-D" if word == "-I" else word for word in rule))
    healed = time.monotonic()
    until("two nodes", lambda: alive(cluster) == 2, 180)
    print(
        f"a partition of 60 s: noticed after {noticed:.1f} s, serving without the node after {serving:.1f} s, "
        f"the node was back {time.monotonic() - healed:.1f} s after it healed"
    )
    with Load(cluster.api, 2, questions) as load:
        until("requests", lambda: load.done > 20, 60)
    assert load.failures == []
