"""Ten times more requests than a replica can take: what it accepts stays as fast, the rest hears so at once, memory stays flat."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
import yaml

from tests.containers import IMAGE, SGLANG, Node

pytestmark = pytest.mark.issue(5)
CONCURRENT, QUEUED, TOKENS = 8, 8, 192
LENGTHS = {IMAGE: {"max_model_len": 2048}, SGLANG: {"context_length": 2048, "max_total_tokens": 8192}}


@dataclass
class Seen:
    """What clients saw: seconds of each accepted request, and what was answered otherwise."""

    accepted: list[float] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)

    def median(self) -> float:
        return statistics.median(self.accepted)

    def p95(self) -> float:
        return statistics.quantiles(self.accepted, n=20)[-1]


@pytest.fixture(scope="module", params=[pytest.param(IMAGE, id="vllm"), pytest.param(SGLANG, id="sglang", marks=pytest.mark.full)])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    model = {"source": "demo", "max_concurrent": CONCURRENT, "max_queued": QUEUED, "engine_args": LENGTHS[request.param]}
    file.write_text(yaml.safe_dump({"models": [model]}))
    file.chmod(0o644)
    mounts = [(str(file), "/config.yaml", "ro")]
    with Node(request.param, env={"RSCAI_CONFIG": "/config.yaml"}, volumes=mounts, shm_size="1g") as started:
        started.api.wait_ready()
        yield started


async def ask(client: httpx.AsyncClient, seen: Seen) -> None:
    body = {"model": "demo", "prompt": "a", "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    start = time.monotonic()
    try:
        answer = await client.post("/v1/completions", json=body)
    except httpx.HTTPError as error:
        seen.failed.append(repr(error))
        return
    took = time.monotonic() - start
    if answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == TOKENS:
        seen.accepted.append(took)
    elif answer.status_code == 503:
        seen.refused.append(answer)
        seen.refusal_s.append(took)
    else:
        seen.failed.append(f"{answer.status_code} {answer.text}")


async def at_capacity(url: str, seconds: float) -> tuple[Seen, float]:
    """As many clients as run and wait, one request after the other; what they saw, and requests per second."""
    seen = Seen()
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        start = time.monotonic()

        async def one() -> None:
            while time.monotonic() - start < seconds:
                await ask(client, seen)

        await asyncio.gather(*(one() for _ in range(CONCURRENT + QUEUED)))
        return seen, len(seen.accepted) / (time.monotonic() - start)


async def at_rate(url: str, rate: float, seconds: float) -> Seen:
    """So many requests a second, whatever becomes of those before."""
    seen, tasks = Seen(), set[asyncio.Task[None]]()
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        start = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(start + number / rate - time.monotonic(), 0))
            task = asyncio.create_task(ask(client, seen))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    return seen


def memory_mib(node: Node) -> float:
    """Of all processes together that is not shared with files."""
    listed = node.exec("sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null", check=False).stdout
    return sum(int(line.split()[1]) for line in listed.splitlines() if line.startswith("RssAnon:")) / 1024


def engine_processes(node: Node) -> list[str]:
    return sorted(line.split()[0] for line in node.exec("ps", "-eo", "pid=,args=").stdout.splitlines() if "ServeReplica" in line)


def logged_refusals(node: Node) -> int:
    """In Serve's log file of the replica, which its engine must not end (and keep the records instead)."""
    found = node.exec("sh", "-c", "cat /tmp/ray/session_latest/logs/serve/replica_demo_*.log | grep -c ' 503 '", check=False)
    return int(found.stdout or 0)


def overloaded(node: Node, seconds: float) -> tuple[Seen, Seen, list[float]]:
    """What clients saw at capacity and at ten times that, and the memory meanwhile, a figure every ten seconds."""

    async def both() -> tuple[Seen, Seen, list[float]]:
        await at_capacity(node.api.url, 5)
        calm, rate = await at_capacity(node.api.url, 15)
        assert calm.refused == calm.failed == []
        memory: list[float] = []

        async def watch() -> None:
            while True:
                memory.append(await asyncio.to_thread(memory_mib, node))
                await asyncio.sleep(10)

        watching = asyncio.create_task(watch())
        full = await at_rate(node.api.url, 10 * rate, seconds)
        watching.cancel()
        print(
            f"capacity {rate:.1f} requests/s, {calm.median():.2f} s median, {calm.p95():.2f} s p95; at ten times that {len(full.accepted)} "
            f"accepted, {full.median():.2f} s median, {full.p95():.2f} s p95, {len(full.refused)} refused after "
            f"{statistics.median(full.refusal_s) * 1000:.0f} ms; memory {memory[0]:.0f} MiB, then {memory[len(memory) // 2]:.0f}, then {memory[-1]:.0f}"
        )
        return calm, full, memory

    return asyncio.run(both())


def check(calm: Seen, full: Seen, median: float, p95: float) -> None:
    """The last two: how many times longer accepted requests may take than at capacity."""
    assert full.failed == []
    assert full.median() < median * calm.median()
    assert full.p95() < p95 * calm.p95()
    assert len(full.refused) > 2 * len(full.accepted)
    for answer in full.refused:
        error = answer.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("service_unavailable", 503, None)
        assert "is at its limit: 8 requests at a time, 8 waiting; try again in " in error["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_at_ten_times_its_capacity(node: Node) -> None:
    before = engine_processes(node)
    calm, full, _ = overloaded(node, 20)
    check(calm, full, 6, 10)  # on whatever machine; with an endless queue the last would wait for three minutes, 300 times longer
    assert node.api.is_ready()
    assert engine_processes(node) == before
    assert logged_refusals(node) == len(full.refused)


@pytest.mark.full
def test_memory_stays_flat_for_five_minutes(node: Node) -> None:
    calm, full, memory = overloaded(node, 300)
    check(calm, full, 1.5, 2)
    early, late = statistics.median(memory[3:9]), statistics.median(memory[-6:])
    assert late < 1.03 * early, memory
