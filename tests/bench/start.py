"""How long a node takes to join, what a command costs, and what an idle head uses: ``python -m tests.bench.start``.

A worker of ours and a bare ``ray start`` of the same image join the same head in turn, each at an address that no node had before, since
a head keeps a worker waiting while it takes the last node of that address for alive. The times are Docker's own, from the container's start
to the line that says that it has joined.
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import statistics
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tests.containers import IMAGE, run, until

TOKEN = "benchmarktoken0123456789"
JOINED, STARTED = "joined the cluster as", "Ray runtime started."
_TIMES = """
import json, statistics, subprocess, sys, time
def once(words):
    began = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began
print(json.dumps({name: statistics.median(once(["ray-serve-cai", name]) for _ in range(7)) for name in ("plan", "health")}))
"""
_IDLE = """
import json, psutil, time
ours = {}
for one in psutil.process_iter():
    words = " ".join(one.cmdline())
    name = "launcher" if "ray-serve-cai node" in words else "serve" if "ray_serve_cai.cli serve" in words else None
    name = "front door" if "/tmp/ray-serve-cai/haproxy.cfg" in words else name
    if name and "tini" not in one.name():
        ours[name] = one
def spent():
    return {name: sum(one.cpu_times()[:2]) for name, one in ours.items()}
before, began = spent(), time.monotonic()
time.sleep(SECONDS)
took = time.monotonic() - began
print(json.dumps({name: (after - before[name]) / took for name, after in spent().items()}))
"""


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.start", description=__doc__, epilog="example: python -m tests.bench.start --rounds 5"
    )
    parser.add_argument("--rounds", type=int, default=5, help="nodes of each kind, in turn (default: 5)")
    parser.add_argument("--idle", type=int, default=30, help="seconds of rest that are measured (default: 30)")
    arguments = parser.parse_args(words)
    with head() as (network, addresses, container):
        print("a head waits; nodes join in turn", file=sys.stderr)
        ours, bare = [], []
        for _ in range(arguments.rounds):
            ours.append(seconds(network, next(addresses), JOINED, "ray-serve-cai", "node"))
            bare.append(seconds(network, next(addresses), STARTED, "ray", "start", "--address=head:6379", "--block"))
        print("commands, and the head at rest", file=sys.stderr)
        commands = inside(container, _TIMES)
        idle = inside(container, _IDLE.replace("SECONDS", str(arguments.idle)))
    print(
        json.dumps(
            {
                "joined_s": spread(ours),
                "ray_start_s": spread(bare),
                "beyond_ray_start_s": round(statistics.median(ours) - statistics.median(bare), 2),
                "commands_s": {name: round(took, 3) for name, took in commands.items()},
                "idle_head_cores": {name: round(cores, 4) for name, cores in idle.items()} | {"sum": round(sum(idle.values()), 4)},
            },
            indent=1,
        )
    )
    return 0


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "least": round(min(values), 2), "most": round(max(values), 2)}


@contextmanager
def head() -> Iterator[tuple[str, Iterator[str], str]]:
    """A network, addresses in it for nodes, and in it a head that waits for more nodes than come, and so has no model."""
    network = f"rscai-bench-{uuid.uuid4().hex[:8]}"
    addresses = create(network)
    container = start(network, "--name", f"{network}-head", "--network-alias", "head", "-e", "RSCAI_ROLE=head", "-e", "RSCAI_MIN_NODES=99")
    try:
        until("the head", lambda: "waiting for nodes: nodes joined 1/99" in logs(container), 90)
        yield network, addresses, container
    finally:
        run("docker", "rm", "--force", "--volumes", container)
        run("docker", "network", "rm", network)


def create(network: str) -> Iterator[str]:
    """Make the network, and give addresses in it that Docker does not come to by itself: it gives the lowest that is free.

    Docker takes an address for a container only where the network was made with a subnet, so it is asked first which one is free.
    """
    run("docker", "network", "create", network)
    subnet = run("docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network).stdout.strip()
    run("docker", "network", "rm", network)
    run("docker", "network", "create", "--subnet", subnet, network)
    return (str(ip) for ip in itertools.islice(ipaddress.ip_network(subnet).hosts(), 9, None))


def start(network: str, *words: str, command: tuple[str, ...] = ()) -> str:
    given = ("--detach", "--no-healthcheck", "--network", network, "--shm-size", "256m", "-e", f"RSCAI_TOKEN={TOKEN}")
    return run("docker", "run", *given, *words, IMAGE, *command).stdout.strip()


def seconds(network: str, ip: str, said: str, *command: str) -> float:
    """From the container's start to the line."""
    joining = ("-e", "RSCAI_ROLE=worker", "-e", "RSCAI_HEAD_ADDRESS=head", "-e", "RAY_AUTH_MODE=token", "-e", f"RAY_AUTH_TOKEN={TOKEN}")
    container = start(network, "--ip", ip, *joining, command=command)
    try:
        line = until(said, lambda: next((line for line in logs(container).splitlines() if said in line), ""), 120)
        began = run("docker", "inspect", "--format", "{{.State.StartedAt}}", container).stdout.strip()
        return (moment(line.split()[0]) - moment(began)).total_seconds()
    finally:
        run("docker", "rm", "--force", "--volumes", container)


def moment(stamp: str) -> datetime:
    """Docker's time, which has nanoseconds."""
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00")


def logs(container: str) -> str:
    done = run("docker", "logs", "--timestamps", container)
    return done.stdout + done.stderr


def inside(container: str, script: str) -> dict[str, Any]:
    return dict(json.loads(run("docker", "exec", container, "python3", "-c", script, timeout=300).stdout))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
