"""Runs the benchmark: ``python -m tests.bench``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import signal
import sys
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import Any, NoReturn

from tests.bench import plot, report
from tests.bench.containers import (
    ENGINE_ARGUMENTS,
    MODEL,
    RAY_LLM_IMAGE,
    SERVERS,
    Container,
    build_ray_llm,
    foreign_containers,
    kinds,
    machine_cpu_s,
    quiet,
)
from tests.bench.load import drive, messages
from tests.bench.results import Block, Cpu, Results, block
from tests.containers import IMAGE, ROOT, run

DEFAULT_SERVERS = "bare,ours,ray-llm"
IDLE_WINDOW_S = 5.0
DISTURBED_CORES = 0.5
EXAMPLE = """example, short and for two servers only, with the raw numbers in a file and no page written:
  python -m tests.bench --servers bare,ours --concurrency 1 --rounds 1 --requests 3 --per-stream 3 --json /tmp/bench.json
write the page and the plot from raw numbers measured before:
  python -m tests.bench --from docs/benchmarks.json --out docs"""


def main(words: list[str]) -> int:
    arguments = parse(words)
    if arguments.source:
        results = Results.from_dict(json.loads(arguments.source.read_text(encoding="utf-8")))
    else:
        if arguments.out:
            plot.check()
        signal.signal(signal.SIGTERM, _leave)
        results = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results.as_dict(), indent=1) + "\n", encoding="utf-8")
    if arguments.out:
        report.write(results, arguments.out / "benchmarks.md")
        plot.write(results, arguments.out / "benchmarks.svg")
    print(report.tables(results))
    return 0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures this project beside the bare engine server and ray.serve.llm, interleaved, on this machine.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the tables show medians over them (default: 5)")
    parser.add_argument("--requests", type=int, default=40, help="requests per run, at least (default: 40)")
    parser.add_argument("--per-stream", type=int, default=8, help="requests per run and stream, at least (default: 8)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per request (default: 64)")
    parser.add_argument("--concurrency", default="1,8,32", help="streams at a time, a list (default: 1,8,32)")
    parser.add_argument("--servers", default=DEFAULT_SERVERS, help=f"a list of {', '.join(SERVERS)} (default: {DEFAULT_SERVERS})")
    parser.add_argument("--quiet", type=float, default=60, help="seconds to wait before each run for the machine to rest (default: 60)")
    parser.add_argument("--repeat", type=int, default=2, help="how often a disturbed run is repeated (default: 2)")
    parser.add_argument(
        "--with", dest="extra", action="append", default=[], metavar="NAME=VALUE", help="a variable of the container of ours-with"
    )
    parser.add_argument("--json", type=Path, help="write the raw numbers here")
    parser.add_argument("--out", type=Path, help="directory of benchmarks.md, whose tables are replaced, and of benchmarks.svg")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing: take the raw numbers from here")
    arguments = parser.parse_args(words)
    arguments.concurrency = [int(word) for word in arguments.concurrency.split(",")]
    arguments.servers = arguments.servers.split(",")
    arguments.extra = dict(word.split("=", 1) for word in arguments.extra)
    unknown = [name for name in arguments.servers if name not in SERVERS]
    if unknown:
        parser.error(f"no such server: {', '.join(unknown)}; use {', '.join(SERVERS)}")
    return arguments


def measure(arguments: argparse.Namespace) -> Results:
    """Start the containers, measure round by round, remove the containers."""
    names: list[str] = arguments.servers
    wanted = dict.fromkeys(SERVERS[name].kind for name in names)
    if "ray-llm" in wanted:
        say(f"building {RAY_LLM_IMAGE}")
        build_ray_llm()
    made = kinds(arguments.extra)
    with ExitStack() as stack:
        running = {}
        for kind in wanted:
            running[kind] = stack.enter_context(Container(kind, made[kind]))
            say(f"started {running[kind].name}")
            running[kind].wait_ready()
            running[kind].freeze()
        bench = Bench({name: running[SERVERS[name].kind] for name in names}, arguments.tokens, arguments.quiet)
        about = describe(arguments, words=sys.argv[1:], ours=[each.name for each in running.values()])
        idle = {}
        for kind, container in running.items():
            container.thaw()
            bench.wait_quiet()
            idle[kind] = round(container.idle_cores(IDLE_WINDOW_S), 3)
            container.freeze()
        say(f"CPUs in use at rest: {idle}")
        blocks = []
        for round_ in range(arguments.rounds):
            for level, concurrency in enumerate(arguments.concurrency):
                turn = (round_ + level) % len(names)
                for name in names[turn:] + names[:turn]:
                    requests = max(arguments.requests, arguments.per_stream * concurrency)
                    blocks.append(bench.undisturbed(name, concurrency, round_, requests, arguments.repeat))
                    say(report.line(blocks[-1]))
    return Results(about, idle, tuple(blocks))


class Bench:
    """The servers by name, and the prompts' running number. Only one container is not frozen at any time."""

    def __init__(self, servers: dict[str, Container], tokens: int, quiet_s: float) -> None:
        self._servers = servers
        self._tokens = tokens
        self._quiet_s = quiet_s
        self._serial = count(int.from_bytes(os.urandom(2), "big"))

    def undisturbed(self, name: str, concurrency: int, round_: int, requests: int, repeats: int) -> Block:
        """A run that other processes disturbed is repeated; the one that they disturbed least counts, whatever it measured."""
        best = self.block(name, concurrency, round_, requests)
        while best.other_cores > DISTURBED_CORES and repeats > 0:
            repeats -= 1
            say(f"other processes used {best.other_cores:.2f} CPUs; once more")
            best = min(best, self.block(name, concurrency, round_, requests), key=lambda each: each.other_cores)
        return best

    def block(self, name: str, concurrency: int, round_: int, requests: int) -> Block:
        """One server at one concurrency: thaw, wait for quiet, warm up, measure, freeze."""
        container, port = self._servers[name], SERVERS[name].port
        host = container.address
        stream = messages(host, MODEL, self._tokens, self._serial)
        container.thaw()
        self.wait_quiet()
        asyncio.run(drive(host, port, list(islice(stream, 2 * concurrency)), concurrency))
        todo = list(islice(stream, requests))
        server, machine = container.cpu_s(), machine_cpu_s()
        result = asyncio.run(drive(host, port, todo, concurrency))
        used = Cpu(container.cpu_s() - server, machine_cpu_s() - machine)
        container.freeze()
        return block(name, concurrency, round_, result, used)

    def wait_quiet(self) -> None:
        """A container that was frozen has timers to catch up with, and other work may run here: wait until the machine rests."""
        if not quiet(self._quiet_s):
            say(f"the machine did not rest within {self._quiet_s:.0f} s; measuring all the same")


def describe(arguments: argparse.Namespace, words: list[str], ours: list[str]) -> dict[str, Any]:
    """Where, when, with what: what the numbers hold for."""
    labels = json.loads(run("docker", "image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE).stdout)
    cpuinfo = Path("/proc/cpuinfo").read_text()
    used = dict.fromkeys(SERVERS[name].kind for name in arguments.servers)
    commit = run("git", "rev-parse", "--short=10", "HEAD").stdout.strip()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "unknown")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": " ".join(["python -m tests.bench", *words]),
        "commit": commit,
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": os.uname().release,
        "vllm": labels.get("io.ray-serve-cai.engine.version"),
        "ray": labels.get("io.ray-serve-cai.ray.version"),
        "image": IMAGE,
        "engine_arguments": ENGINE_ARGUMENTS,
        "variables": {kind: dict(kinds(arguments.extra)[kind].variables) for kind in used},
        "model": MODEL,
        "tokens": arguments.tokens,
        "rounds": arguments.rounds,
        "servers": arguments.servers,
        "other_containers": foreign_containers(ours),
        "load_before": round(os.getloadavg()[0], 2),
    }


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _leave(*_: object) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
