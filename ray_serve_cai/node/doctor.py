"""``ray-serve-cai doctor``: what would keep this node from serving, or slow it down, each with its fix. Starts nothing of the node.

Each check looks at one thing and returns what it found; a further check is one more function and one more row of ``CHECKS``.
Longer than most modules for the number of its checks, which share no state.
"""

from __future__ import annotations

import asyncio
import email.utils
import http.client
import os
import re
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

import psutil

from ray_serve_cai import sources
from ray_serve_cai.errors import RayServeCaiError, UnavailableError, counted, sized
from ray_serve_cai.node import address, health, join, preflight, tls, token
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.environment import Environment, text
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.node.status import PROBE_BYTES
from ray_serve_cai.node.supervisor import directories
from ray_serve_cai.state import ModelFiles

Level = Literal["ok", "warning", "error", "skipped"]

_GIB = 1 << 30
SMALL_SHM = 160 << 20
FEW_FILES = 65_536
LITTLE_DISK = 10 * _GIB
LITTLE_MEMORY = 4 * _GIB
SKEW_S = 10.0
FEW_DAYS = 14
TIMEOUT_S = 5.0
PROBE_S = 3.0
DRIVERS = {11: 450, 12: 525, 13: 580}
"""CUDA's major -> the driver's least major (NVIDIA, CUDA Toolkit release notes, minor version compatibility)."""
_LINUX_IP_MTU, _LINUX_IPV6_MTU = 14, 24


@dataclass(frozen=True)
class Finding:
    """What a check saw; ``fix`` is what to do about it, where there is something to do."""

    check: str
    level: Level
    fact: str
    fix: str = ""


@dataclass(frozen=True)
class Node:
    """What the checks look at.

    Attributes:
        engines: those installed here.
        files: what a node needs for the models that this head would serve; raises what is wrong with the configuration.
        running: a launcher runs on this node already.
        root: stands before /dev and /proc in tests.
    """

    plan: NodePlan
    env: Environment
    machine: Machine
    manifest: Manifest
    engines: Sequence[str]
    files: Callable[[], Sequence[ModelFiles]]
    running: bool
    root: Path = Path("/")

    def token(self) -> str | None:
        return token.given(self.env) or token.read(directories(self.env)[1])


Check = Callable[[Node], Finding]


def role(node: Node) -> Finding:
    """Which contract decided."""
    plan = node.plan
    read = ", ".join(f"{name}={value}" for name, value in plan.variables.items())
    said = f"{plan.role} by rule {plan.rule!r}" + (f" ({read})" if read else "")
    return Finding("role", "warning" if plan.doubts else "ok", said, " ".join(plan.doubts))


def shared_memory(node: Node) -> Finding:
    """Ray's object store, NCCL and the engines' queues between ranks live in /dev/shm."""
    size = node.machine.shm_bytes
    if size >= SMALL_SHM:
        return Finding("shm", "ok", sized(size))
    return Finding(
        "shm",
        "warning",
        f"/dev/shm has {sized(size)}: Ray's object store goes to /tmp, and ranks on one node may not start",
        "start the container with --shm-size 1g, or mount an emptyDir of medium Memory at /dev/shm",
    )


def open_files(node: Node) -> Finding:
    """Each stream takes a few descriptors in each process that it passes; the launcher raises its own limit to the hard one."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY or limit >= FEW_FILES:
        return Finding("open files", "ok", "unlimited" if limit == resource.RLIM_INFINITY else str(limit))
    return Finding("open files", "warning", f"{limit} at most", f"start the container with --ulimit nofile={FEW_FILES}:{FEW_FILES}")


def rdma(node: Node) -> Finding:
    """InfiniBand and RoCE devices, and the locked memory that they need."""
    devices = sorted(node.root.glob("dev/infiniband/uverbs*"))
    if not devices:
        return Finding("RDMA", "skipped", "no /dev/infiniband; ranks of several nodes talk over TCP")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY:
        return Finding("RDMA", "ok", counted(len(devices), "device"))
    return Finding(
        "RDMA",
        "warning",
        f"{counted(len(devices), 'device')}, but locked memory is limited to {sized(limit)}",
        "start the container with --ulimit memlock=-1",
    )


def memory(node: Node) -> Finding:
    """The container's limit, or the machine's."""
    size, cpus = node.machine.memory_bytes, node.machine.cpus
    said = f"{sized(size)}, {counted(cpus, 'CPU')}"
    if size >= LITTLE_MEMORY:
        return Finding("memory", "ok", said)
    return Finding("memory", "warning", said, "Ray and an engine take 4 GiB before any weights; raise the container's limit")


def ports(node: Node) -> Finding:
    """All that this role listens on."""
    if node.running:
        return Finding("ports", "skipped", "a launcher runs on this node and has them")
    try:
        preflight.check_ports(node.plan)
    except RayServeCaiError as error:
        return _of_error("ports", error)
    return Finding("ports", "ok", f"all {len(node.plan.ports.listening(node.plan.role))} free")


def disk(node: Node) -> Finding:
    """Where weights from a hub are kept."""
    cache = sources.cache(node.env)
    there = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK, effective_ids=True):
        return Finding(
            "disk",
            "warning",
            f"the model cache {cache} is not writable for uid {os.getuid()}",
            "mount a volume there, or name another with HF_HOME",
        )
    if free < LITTLE_DISK:
        return Finding(
            "disk", "warning", f"{sized(free)} free for the model cache {cache}", "give its volume more room, or name another with HF_HOME"
        )
    return Finding("disk", "ok", f"{sized(free)} free for the model cache {cache}")


def models(node: Node) -> Finding:
    """Whether the models of this head can be loaded here. A worker is told by its head what to load."""
    if node.plan.role == "worker":
        return Finding("models", "skipped", "the head says what to serve")
    try:
        return _files(node, node.files())
    except RayServeCaiError as error:
        return _of_error("models", error)


def _files(node: Node, found: Sequence[ModelFiles]) -> Finding:
    try:
        sources.check_all(found, node.env, engines=node.engines, gpus=node.plan.resources.gpus)
    except RayServeCaiError as error:
        return _of_error("models", error)
    return Finding("models", "ok", ", ".join(dict.fromkeys(one.source for one in found)) or "none")


def gpus(node: Node) -> Finding:
    """Devices, and whether their driver is new enough for the image's CUDA."""
    count = node.machine.gpus
    if node.manifest.device != "cuda":
        if count:
            return Finding("GPUs", "warning", f"{count} here, but this image computes on CPUs", "use the image of the same engine for CUDA")
        return Finding("GPUs", "skipped", "this image computes on CPUs")
    if not count:
        return Finding("GPUs", "error", "none in this container", preflight.GPUS)
    wanted, driver = _cuda(), _driver(node.root)
    least = DRIVERS.get(wanted or 0)
    said = f"{count}, driver {driver or 'unknown'}, CUDA {wanted or 'unknown'} in the image"
    if driver and least and int(driver.partition(".")[0]) < least:
        return Finding("GPUs", "error", said, f"CUDA {wanted} needs driver {least} or newer: update the driver of the machine")
    return Finding("GPUs", "ok", said)


def kuberay(node: Node) -> Finding:
    """KubeRay replaces a container's command, and asks the head for its health in workers' pods, each unless it is told how.

    Without the annotation process 1 is a shell with KubeRay's own ``ray start``, behind the container's command if that has one;
    the init container ``wait-gcs-ready`` runs ``ray health-check`` in the worker's environment (KubeRay 1.7.0,
    ray-operator/controllers/ray/common/pod.go, BuildPod and DefaultWorkerPodTemplate).
    """
    if text(node.env, "KUBERAY_GEN_RAY_START_CMD") is None:
        return Finding("KubeRay", "skipped", "not there")
    annotate = 'annotate the RayCluster with ray.io/overwrite-container-cmd: "true"'
    if "ray start" in _first_process(node.root):
        if node.running:
            fact = "KubeRay runs the launcher in a shell before its own `ray start`: no SIGTERM reaches it, and streams are cut"
            return Finding("KubeRay", "warning", fact, annotate)
        return Finding("KubeRay", "error", "KubeRay runs its own `ray start` in this pod, and no launcher: nothing serves", annotate)
    if not node.running:
        command = 'let the container\'s command be ["tini", "--", "ray-serve-cai", "node"]'
        return Finding("KubeRay", "warning", "no launcher runs in this pod", f"{annotate}, and {command}")
    if node.plan.role == "head" and not any(text(node.env, name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        fact = "Ray's own commands have no token here; where workers have none either, their init container wait-gcs-ready waits for ever"
        return Finding("KubeRay", "warning", fact, "set RAY_AUTH_MODE to token, and RAY_AUTH_TOKEN_PATH to the token's file, in all pods")
    return Finding("KubeRay", "ok", "the launcher runs")


def cluster_token(node: Node) -> Finding:
    """It is never shown."""
    try:
        found = node.token()
    except RayServeCaiError as error:
        return _of_error("token", error)
    if found:
        return Finding("token", "ok", "given" if token.given(node.env) else "in the state directory")
    if node.plan.role == "worker":
        return Finding("token", "error", "none", "give all nodes the same RSCAI_TOKEN, or RSCAI_TOKEN_FILE, or the head's state volume")
    return Finding("token", "ok", "none yet; the head makes one when it starts")


def certificates(node: Node) -> Finding:
    """Whether the other nodes' Ray would accept this one's."""
    try:
        end = tls.check(node.env, node.plan.node_ip)
    except RayServeCaiError as error:
        return _of_error("TLS", error)
    if end is None:
        return Finding("TLS", "skipped", f"{tls.SWITCH} is not set")
    days = (end - time.time()) / 86_400
    said = f"the certificate is valid for {counted(int(days), 'day')} more"
    if days >= FEW_DAYS:
        return Finding("TLS", "ok", said)
    return Finding("TLS", "warning", said, "renew it, and start the nodes anew one by one: processes that start after its end cannot join")


CHECKS: tuple[Check, ...] = (
    *(role, shared_memory, memory, open_files, rdma, ports, disk, models, gpus, kuberay, cluster_token),
    certificates,
)


def examine(node: Node, peer: Address | None) -> Iterator[Finding]:
    """All findings, each as soon as it is there; ``peer`` is another node to look at, by default a worker's head."""
    for check in CHECKS:
        yield check(node)
    other = peer or (node.plan.head if node.plan.role == "worker" else None)
    if other is not None:
        yield from _reach(node, other)


def _reach(node: Node, other: Address) -> Iterator[Finding]:
    """Name, clock, versions and the way to another node, as far as each is reached."""
    try:
        ip = str(socket.getaddrinfo(other.host, other.port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        yield Finding("DNS", "error", f"{other.host!r} does not resolve: {error}", "check the name, and the container's DNS and network")
        return
    yield Finding("DNS", "ok", f"{other.host} is {ip}")
    status = node.plan.ports.status
    try:
        found = _clock(ip, status)
    except (OSError, http.client.HTTPException) as error:
        fix = f"check that the head runs, and that TCP port {status} is open between the nodes"
        yield Finding("peer", "error", f"nothing answers on {Address(ip, status)}: {error}", fix)
        return
    yield found
    if found.level == "error":
        return
    key = _key(node)
    if not key:
        yield Finding("admission", "skipped", "there is no token to ask with")
        return
    said = list(_admission(node, other, ip, status, key))
    yield from said
    if not any(one.check == "admission" and one.level == "error" for one in said):
        yield from _way(ip, status, key)


def _clock(ip: str, port: int) -> Finding:
    """How far the clocks are apart; or that no launcher answers there."""
    connection = http.client.HTTPConnection(ip, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200 or b'"phase"' not in body:
        fact = f"another program answers on {Address(ip, port)}, and no launcher"
        return Finding("peer", "error", fact, "check the address of the head, and RSCAI_STATUS_PORT, which is equal on all nodes")
    said = email.utils.parsedate_to_datetime(answer.headers.get("Date") or "Thu, 01 Jan 1970 00:00:00 GMT")
    skew = time.time() - said.timestamp()
    if abs(skew) <= SKEW_S:
        return Finding("clock", "ok", f"within {SKEW_S:.0f} s of the peer's")
    return Finding(
        "clock",
        "warning",
        f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the peer's",
        "let both machines keep their time with NTP",
    )


def _admission(node: Node, other: Address, ip: str, status: int, key: str) -> Iterator[Finding]:
    """Whether the peer, if it is a head, would let this node in, and whether what it serves can be loaded here."""
    try:
        roll = asyncio.run(join.fetch_roll(other, status, key))
        join.compare(node.manifest, roll.manifest, roll.spanning)
        join.compare_tls(tls.given(node.env) is not None, roll)
    except RayServeCaiError as error:
        yield _of_error("admission", error)
        return
    own = node.plan.node_ip or node.machine.source_ip(ip)
    if own and not node.running and roll.node(own):
        fact = f"the cluster has a living node with this node's address, {own}"
        yield Finding("admission", "error", fact, "set RSCAI_NODE_IP, or use host networking")
        return
    alive = sum(bool(one["alive"]) for one in roll.nodes)
    yield Finding("admission", "ok", f"token, versions and address fit; the cluster has {counted(alive, 'node')}")
    if node.plan.role == "worker":
        yield replace(_files(node, roll.files), check="models of the head")


def _way(ip: str, port: int, key: str) -> Iterator[Finding]:
    """MTU and throughput."""
    family, level, option = (
        (socket.AF_INET6, socket.IPPROTO_IPV6, _LINUX_IPV6_MTU) if ":" in ip else (socket.AF_INET, socket.IPPROTO_IP, _LINUX_IP_MTU)
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((ip, port))
        mtu, own = probe.getsockopt(level, option), probe.getsockname()[0]
    interfaces, stats = psutil.net_if_addrs().items(), psutil.net_if_stats()
    name = next((name for name, addresses in interfaces if any(one.address == own for one in addresses)), "")
    yield Finding("MTU", "ok", f"{mtu}" + (f" on {name}, which has {stats[name].mtu}" if name in stats else ""))
    connection = http.client.HTTPConnection(ip, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/probe", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        began, received = time.monotonic(), 0
        while time.monotonic() - began < PROBE_S and (chunk := answer.read(1 << 20)):
            received += len(chunk)
        took = time.monotonic() - began
    except (OSError, http.client.HTTPException) as error:
        yield Finding("throughput", "warning", f"could not be measured: {error}", "look at the network between the nodes")
        return
    finally:
        connection.close()
    if answer.status != 200 or received < min(PROBE_BYTES, 1 << 20):
        yield Finding("throughput", "skipped", f"the peer does not measure it (status {answer.status})")
        return
    yield Finding("throughput", "ok", f"{received * 8 / took / 1e9:.2f} Gbit/s over TCP, one connection, {took:.1f} s")


def _key(node: Node) -> str | None:
    try:
        return node.token()
    except RayServeCaiError:
        return None


def _of_error(check: str, error: RayServeCaiError) -> Finding:
    """An error's own line, which says the fact, the value and the fix."""
    fact, semicolon, fix = str(error).rstrip(".").partition("; ")
    return Finding(check, "error", fact, fix if semicolon else "")


def _cuda() -> int | None:
    """The major of the CUDA runtime among the installed packages."""
    for one in distributions():
        if (one.metadata["Name"] or "").startswith("nvidia-cuda-runtime"):
            return int(one.version.partition(".")[0])
    return None


def _first_process(root: Path) -> str:
    """The command line of process 1."""
    try:
        return (root / "proc/1/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _driver(root: Path) -> str | None:
    try:
        said = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", said)
    return found[1] if found else None


def is_running() -> bool:
    """Whether a launcher answers on this node."""
    try:
        health.ask("/health")
    except UnavailableError:
        return False
    return True


def peer(given: str) -> Address:
    """The address of ``--peer``.

    Raises:
        UsageError: it is none.
    """
    return address.parse("--peer", given)
