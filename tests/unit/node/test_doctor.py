import asyncio
import email.utils
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ray_serve_cai.errors import ConfigError
from ray_serve_cai.node import doctor, status, tls
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.doctor import Finding, Node
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.state import ClusterState, ModelFiles, NodeState
from tests.certificates import Authority

TOKEN = "a1" * 24
GIB, MIB = 1 << 30, 1 << 20
Make = Callable[..., Node]


@pytest.fixture
def make(make_plan: Callable[..., NodePlan], make_machine: Callable[..., Machine], manifest: Manifest, tmp_path: Path) -> Make:
    """A node of an environment; keyword arguments change its machine, manifest, files or root."""

    def made(env: dict[str, str] | None = None, **changes: Any) -> Node:
        env = {"RSCAI_STATE_DIR": str(tmp_path), "HF_HOME": str(tmp_path)} | (env or {})
        facts: dict[str, Any] = {
            "engines": ["vllm"],
            "files": lambda: [ModelFiles("demo", str(tmp_path), "vllm")],
            "running": False,
            "root": tmp_path,
            "manifest": replace(manifest, device=changes.pop("device", "cpu")),
        }
        facts |= {name: changes.pop(name) for name in list(changes) if name in facts}
        return Node(plan=make_plan(env, **changes), env=env, machine=make_machine(**changes), **facts)

    return made


def judged(found: Finding, level: str, *parts: str) -> None:
    assert found.level == level, found
    for part in parts:
        assert part in f"{found.fact} -> {found.fix}"
    assert found.fix or level in ("ok", "skipped")


def test_the_role_and_who_decided(make: Make) -> None:
    judged(
        doctor.role(make({"LWS_LEADER_ADDRESS": "a.b", "LWS_WORKER_INDEX": "1"})),
        "ok",
        "worker by rule 'LeaderWorkerSet'",
        "LWS_WORKER_INDEX=1",
    )
    judged(doctor.role(make()), "ok", "single by rule 'nothing'")


def test_shared_memory(make: Make) -> None:
    judged(doctor.shared_memory(make()), "ok", "2.0 GiB")
    judged(doctor.shared_memory(make(shm_bytes=64 * MIB)), "warning", "/dev/shm has 64 MiB", "--shm-size 1g")


def test_memory(make: Make) -> None:
    judged(doctor.memory(make()), "ok", "16.0 GiB, 4 CPUs")
    judged(doctor.memory(make(memory_bytes=3 * GIB, cpus=1)), "warning", "3.0 GiB, 1 CPU ", "raise the container's limit")


@pytest.mark.parametrize(("limit", "level"), [(1024, "warning"), (65_536, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_open_files(make: Make, monkeypatch: pytest.MonkeyPatch, limit: int, level: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    judged(doctor.open_files(make()), level, *(["--ulimit nofile=65536:65536"] if level == "warning" else []))


def test_rdma(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(doctor.rdma(make()), "skipped", "no /dev/infiniband")
    (tmp_path / "dev/infiniband").mkdir(parents=True)
    (tmp_path / "dev/infiniband/uverbs0").touch()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64 << 10, 64 << 10))
    judged(doctor.rdma(make()), "warning", "1 device", "locked memory is limited to 64 KiB", "--ulimit memlock=-1")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    judged(doctor.rdma(make()), "ok", "1 device")


def test_ports(make: Make, taken_port: int) -> None:
    judged(
        doctor.ports(make({"RSCAI_PORT": str(taken_port)})),
        "error",
        f"port {taken_port} on 0.0.0.0 (front_door) is in use",
        "set RSCAI_PORT",
    )
    judged(doctor.ports(make({"RSCAI_PORT": str(taken_port)}, running=True)), "skipped", "a launcher runs")


def test_disk(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 0)
    judged(doctor.disk(make()), "ok", f"free for the model cache {tmp_path}/hub")
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 60)
    judged(doctor.disk(make()), "warning", "more room")


def test_a_cache_that_cannot_be_written(make: Make, without_rights: None) -> None:
    judged(doctor.disk(make({"HF_HOME": "/usr/x", "RSCAI_STATE_DIR": "/tmp"})), "warning", "/usr/x/hub is not writable for uid", "HF_HOME")


def test_models(make: Make, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    judged(doctor.models(make()), "ok", str(tmp_path))
    judged(
        doctor.models(make(files=lambda: [ModelFiles("demo", "/nowhere", "vllm")])),
        "error",
        "model path '/nowhere' does not exist on this node",
        "mount it at the same path",
    )
    judged(doctor.models(make({"RSCAI_HEAD_ADDRESS": "far"})), "skipped", "the head says")

    def wrong() -> list[ModelFiles]:
        raise ConfigError("models[0].x: unknown key; remove it.")

    judged(doctor.models(make(files=wrong)), "error", "unknown key -> remove it")


def test_gpus(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(doctor.gpus(make()), "skipped", "computes on CPUs")
    judged(doctor.gpus(make(gpus=2)), "warning", "2 here, but this image computes on CPUs", "image of the same engine for CUDA")
    judged(doctor.gpus(make(device="cuda")), "error", "none in this container", "--gpus all", "nvidia.com/gpu")
    monkeypatch.setattr(doctor, "_cuda", lambda: 13)
    judged(doctor.gpus(make(device="cuda", gpus=8)), "ok", "8, driver unknown, CUDA 13 in the image")
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\nGCC version: 12\n")
    judged(doctor.gpus(make(device="cuda", gpus=8)), "error", "driver 570.133.20", "CUDA 13 needs driver 580 or newer")
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n")
    judged(doctor.gpus(make(device="cuda", gpus=8)), "ok", "driver 580.65.06")


ANNOTATION = 'ray.io/overwrite-container-cmd: "true"'


def test_kuberay(make: Make) -> None:
    env = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head"}
    judged(doctor.kuberay(make()), "skipped")
    judged(doctor.kuberay(make(env)), "warning", "no launcher runs in this pod", ANNOTATION, '["tini", "--", "ray-serve-cai", "node"]')
    judged(doctor.kuberay(make(env | {"RAY_AUTH_TOKEN_PATH": "/token"}, running=True)), "ok")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("/bin/bash\0-c\0--\0ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; ray start --head  --block \0", id="shell"),
        pytest.param("/opt/venv/bin/python3\0/opt/venv/bin/ray\0start\0--head\0--block\0", id="exec"),
    ],
)
def test_kuberay_runs_its_own_command(make: Make, tmp_path: Path, line: str) -> None:
    first = tmp_path / "proc/1/cmdline"
    first.parent.mkdir(parents=True)
    first.write_text(line)
    env = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head"}
    judged(doctor.kuberay(make(env)), "error", "its own `ray start` in this pod, and no launcher", ANNOTATION)
    judged(doctor.kuberay(make(env, running=True)), "warning", "no SIGTERM reaches it", ANNOTATION)


def test_workers_of_kuberay_wait_where_ray_has_no_token(make: Make) -> None:
    head = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head"}
    worker = {"KUBERAY_GEN_RAY_START_CMD": "ray start --address=svc:6379", "FQ_RAY_IP": "svc"}
    judged(doctor.kuberay(make(head, running=True)), "warning", "wait-gcs-ready waits for ever", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
    judged(doctor.kuberay(make(worker, running=True)), "ok")


def test_the_token_is_never_shown(make: Make, tmp_path: Path) -> None:
    judged(doctor.cluster_token(make()), "ok", "the head makes one")
    judged(doctor.cluster_token(make({"RSCAI_HEAD_ADDRESS": "far"})), "error", "none", "RSCAI_TOKEN_FILE")
    judged(found := doctor.cluster_token(make({"RSCAI_TOKEN": TOKEN})), "ok", "given")
    assert TOKEN not in repr(found)
    (tmp_path / "token").write_text(TOKEN)
    judged(found := doctor.cluster_token(make()), "ok", "in the state directory")
    assert TOKEN not in repr(found)
    judged(
        found := doctor.cluster_token(make({"RSCAI_TOKEN": "short"})),
        "error",
        "RSCAI_TOKEN, or what its file holds, is unusable",
        "use at least 16",
    )
    assert "short" not in repr(found)


@pytest.mark.issue(6)
def test_certificates(make: Make, tmp_path: Path) -> None:
    authority = Authority()

    def found(days: float, *names: str) -> Finding:
        authority.issue(tmp_path, *names, days=days)
        files = {tls.CERTIFICATE: "tls.crt", tls.KEY: "tls.key", tls.AUTHORITY: "ca.crt"}
        return doctor.certificates(make({"RAY_USE_TLS": "1"} | {name: str(tmp_path / file) for name, file in files.items()}))

    judged(doctor.certificates(make()), "skipped", "RAY_USE_TLS is not set")
    judged(doctor.certificates(make({"RAY_USE_TLS": "1"})), "error", "RAY_TLS_SERVER_CERT is not set", "name the PEM file")
    judged(found(20.5, "10.0.0.5"), "ok", "valid for 20 days more")
    judged(found(5.5, "10.0.0.5"), "warning", "valid for 5 days more", "renew it")
    judged(found(-0.02, "10.0.0.5"), "error", "certificate has expired", "give this node a certificate that is valid now")
    judged(found(20, "10.0.0.6"), "error", "names 10.0.0.6, but other nodes reach this one at 10.0.0.5", "subjectAltName")


class Head:
    """The product's own status server on loopback, in a thread of its own."""

    def __init__(self, manifest: Manifest) -> None:
        nodes = (NodeState("1", "127.0.0.1", True, "head"),)
        self.status = status.NodeStatus("head", manifest, lambda: ClusterState(nodes=nodes), session="s", token=TOKEN)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.port = 0
        self.skew_s = 0.0

    def __enter__(self) -> "Head":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = status.application(self.status)

        async def late(_: web.Request, answer: web.StreamResponse) -> None:
            if self.skew_s:
                answer.headers["Date"] = email.utils.formatdate(time.time() - self.skew_s, usegmt=True)

        app.on_response_prepare.append(late)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.port = runner.addresses[0][1]
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()


@pytest.fixture
def head(manifest: Manifest) -> Iterator[Head]:
    with Head(manifest) as started:
        yield started


def worker(make: Make, head: Head, token: str = TOKEN, **changes: Any) -> Node:
    return make(
        {"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "localhost", "RSCAI_STATUS_PORT": str(head.port), "RSCAI_TOKEN": token}, **changes
    )


def of(node: Node, peer: Address | None = None) -> dict[str, Finding]:
    return {found.check: found for found in doctor.examine(node, peer)}


def test_a_worker_looks_at_its_head(make: Make, head: Head) -> None:
    found = of(worker(make, head))
    judged(found["DNS"], "ok", "localhost is ")
    judged(found["clock"], "ok", "within 10 s")
    judged(found["admission"], "ok", "token, versions and address fit; the cluster has 1 node")
    judged(found["models of the head"], "ok", "none")
    judged(found["MTU"], "ok", " on lo, which has ")
    judged(found["throughput"], "ok", "Gbit/s over TCP, one connection")


def test_a_worker_lacks_what_its_head_serves(make: Make, head: Head) -> None:
    head.status.cluster = lambda: ClusterState(files=(ModelFiles("demo", "/nowhere", "vllm"), ModelFiles("b", "/nor/here", "sglang")))
    found = of(worker(make, head))
    judged(found["models of the head"], "error", "model path '/nowhere' does not exist on this node", "mount it at the same path")


def test_a_head_looks_at_nobody_unless_it_is_asked_to(make: Make, head: Head) -> None:
    node = make({"RSCAI_ROLE": "head", "RSCAI_STATUS_PORT": str(head.port)})
    assert "DNS" not in of(node)
    found = of(node, doctor.peer("127.0.0.1"))
    judged(found["admission"], "skipped", "no token")
    assert "throughput" not in found


@pytest.mark.parametrize(
    ("change", "check", "level", "parts"),
    [
        pytest.param(
            {"token": "0123456789abcdef"}, "admission", "error", ["refused this node's token", "give all nodes the same"], id="token"
        ),
        pytest.param(
            {"ray": "2.1.0"}, "admission", "error", ["this node has ray 2.60.0 and the head has 2.1.0", "same release"], id="version"
        ),
        pytest.param(
            {"own": "127.0.0.1"}, "admission", "error", ["living node with this node's address, 127.0.0.1", "RSCAI_NODE_IP"], id="address"
        ),
        pytest.param(
            {"tls": True}, "admission", "error", ["the head uses TLS and this node does not", "RAY_USE_TLS=1 and certificates on all"], id="TLS"
        ),
        pytest.param({"skew": 60.0}, "clock", "warning", [" s ahead of the peer's", "NTP"], id="clock"),
        pytest.param({"skew": -90.0}, "clock", "warning", [" s behind the peer's"], id="clock behind"),
        pytest.param({"host": "nowhere.invalid"}, "DNS", "error", ["'nowhere.invalid' does not resolve", "check the name"], id="DNS"),
        pytest.param({"port": True}, "peer", "error", ["nothing answers on 127.0.0.1:", "is open between the nodes"], id="port"),
    ],
)
def test_what_is_wrong_between_two_nodes(
    make: Make, head: Head, free_port: int, change: dict[str, Any], check: str, level: str, parts: list[str]
) -> None:
    head.skew_s = change.get("skew", 0)
    head.status.manifest = replace(head.status.manifest, ray=change.get("ray", head.status.manifest.ray))
    head.status.tls = change.get("tls", False)
    node = worker(make, head, change.get("token", TOKEN), source_ip=lambda _: change.get("own", "10.0.0.5"))
    peer = doctor.peer(change.get("host", "127.0.0.1"))
    if "port" in change:
        node = replace(node, plan=replace(node.plan, ports=replace(node.plan.ports, status=free_port)))
    judged(of(node, peer)[check], level, *parts)
