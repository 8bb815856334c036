"""What it costs that models share an address: ``python -m tests.bench.shared_address``.

One container serves two models. The second one is asked at its own path, at the shared address as clients do, and there once more so
that only the gateway can read which model is meant; in turn, in one run. CPU time is that of the proxies alone: HAProxy's two
processes, and the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median

import yaml

from tests.bench import load
from tests.containers import IMAGE, Node

MODEL = "second"
OWN, NAMED, GATEWAY = "own path", "front door", "gateway"
_SHARED, _BELOW = b"POST /v1/", f"POST /models/{MODEL}/v1/".encode()
CPU = """
import json, pathlib, os
told = {}
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        line = (stat.parent / "cmdline").read_bytes().decode().replace("\\0", " ")
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        continue
    name = "haproxy" if "haproxy" in line.split(" ")[0] else "gateway" if " gateway --socket" in line else ""
    if name:
        told[name] = told.get(name, 0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
print(json.dumps(told))
"""


def sent(way: str, tokens: int, serial: count[int]) -> Iterator[bytes]:
    """Requests for the second model without end, each as long as any other way's."""
    for message in load.messages("127.0.0.1", MODEL, tokens, serial):
        if way == OWN:
            yield message.replace(_SHARED, _BELOW, 1)
        elif way == GATEWAY:  # HAProxy knows no escapes in names of keys
            head, _, body = message.partition(b"\r\n\r\n")
            longer = body.replace(b'"model"', b'"mod\\u0065l"', 1)
            yield head.replace(str(len(body)).encode(), str(len(longer)).encode()) + b"\r\n\r\n" + longer
        else:
            yield message


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.shared_address",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog="example:\n  python -m tests.bench.shared_address --rounds 3 --streams 200",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the figures are medians over them (default: 5)")
    parser.add_argument("--requests", type=int, default=60, help="requests per way and round for TTFT, one at a time (default: 60)")
    parser.add_argument("--streams", type=int, default=400, help="requests per way and round for CPU time, 8 at a time (default: 400)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per request (default: 64)")
    parser.add_argument("--json", action="store_true", help="print an object for scripts")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "models.yaml"
        file.write_text(yaml.safe_dump({"models": [{"name": "first", "source": "demo"}, {"name": MODEL, "source": "demo"}]}))
        Path(directory).chmod(0o755)
        volumes = [(str(file), "/config.yaml", "ro")]
        with Node(IMAGE, env={"RSCAI_CONFIG": "/config.yaml"}, volumes=volumes, shm_size="1g") as node:
            node.api.wait_ready()
            measured = measure(node, arguments)
    if arguments.json:
        print(json.dumps(measured))
        return 0
    print(f"{'':12}{'TTFT p50, ms':>14}{'above own path':>16}{'CPU s per 1000 streams':>24}{'above own path':>16}")
    for way, (ttft, cpu) in measured.items():
        own_ttft, own_cpu = measured[OWN]
        print(f"{way:12}{ttft:14.2f}{ttft - own_ttft:16.2f}{cpu:24.2f}{cpu - own_cpu:16.2f}")
    return 0


def measure(node: Node, arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Of each way: the median TTFT, ms, and the proxies' CPU time per 1000 streams, seconds."""
    serial, port = count(1), int(node.api.url.rpartition(":")[2])
    ttfts: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}

    def cpu() -> float:
        return float(sum(json.loads(node.exec("python3", "-c", CPU).stdout).values()))

    def drive(way: str, requests: int, concurrency: int) -> load.Run:
        return asyncio.run(load.drive("127.0.0.1", port, list(islice(sent(way, arguments.tokens, serial), requests)), concurrency))

    ways = (OWN, NAMED, GATEWAY)
    for way in ways:
        drive(way, 8, 1)
    for number in range(arguments.rounds):
        for way in ways[number % 3 :] + ways[: number % 3]:
            run = drive(way, arguments.requests, 1)
            ttfts.setdefault(way, []).append(1000 * median(one.ttft for one in run.samples))
            before = cpu()
            drive(way, arguments.streams, 8)
            cpus.setdefault(way, []).append((cpu() - before) * 1000 / arguments.streams)
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    return {way: (median(ttfts[way]), median(cpus[way])) for way in ways}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
