"""Raw samples -> numbers: percentiles, one `Block` per server, concurrency and round, medians over rounds, and the aims. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.load import Run


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile: a value that was measured, never one between two.

    >>> percentile([4, 1, 3, 2], 0.5)
    2
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


@dataclass(frozen=True)
class Block:
    """One server at one concurrency in one round. Times in ms; CPU in seconds; shares in cores."""

    server: str
    concurrency: int
    round: int
    requests: int
    tokens: int
    ttft_p50: float
    ttft_p95: float
    gap_p50: float
    gap_p99: float
    tokens_per_s: float
    events_per_token: float
    chunks_per_token: float
    reads_per_token: float
    cpu_per_1000_tokens: float
    client_cores: float
    other_cores: float


@dataclass(frozen=True)
class Cpu:
    """CPU seconds used in a run: by the server's container, and by all processes of the machine."""

    server_s: float
    machine_s: float


def block(server: str, concurrency: int, round_: int, run: Run, cpu: Cpu) -> Block:
    """The numbers of one run."""
    ttfts = [sample.ttft * 1000 for sample in run.samples]
    gaps = [gap * 1000 for sample in run.samples for gap in sample.gaps]
    return Block(
        server=server,
        concurrency=concurrency,
        round=round_,
        requests=len(run.samples),
        tokens=run.tokens,
        ttft_p50=round(percentile(ttfts, 0.5), 3),
        ttft_p95=round(percentile(ttfts, 0.95), 3),
        gap_p50=round(percentile(gaps, 0.5), 3),
        gap_p99=round(percentile(gaps, 0.99), 3),
        tokens_per_s=round(run.tokens / run.wall_s, 1),
        events_per_token=round(sum(sample.events for sample in run.samples) / run.tokens, 4),
        chunks_per_token=round(sum(sample.token_chunks for sample in run.samples) / run.tokens, 4),
        reads_per_token=round(sum(sample.reads for sample in run.samples) / run.tokens, 4),
        cpu_per_1000_tokens=round(cpu.server_s / run.tokens * 1000, 4),
        client_cores=round(run.client_cpu_s / run.wall_s, 3),
        other_cores=round(max(cpu.machine_s - cpu.server_s - run.client_cpu_s, 0.0) / run.wall_s, 3),
    )


@dataclass(frozen=True)
class Spread:
    """A median over rounds, with the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Results:
    """All that one benchmark measured. ``about`` says where, when and with what; ``idle`` is each server's CPU at rest, in cores."""

    about: dict[str, Any]
    idle: dict[str, float]
    blocks: tuple[Block, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Results:
        return cls(data["about"], data["idle"], tuple(Block(**each) for each in data["blocks"]))

    def servers(self) -> list[str]:
        return list(dict.fromkeys(each.server for each in sorted(self.blocks, key=lambda each: self.about["servers"].index(each.server))))

    def concurrencies(self) -> list[int]:
        return sorted({each.concurrency for each in self.blocks})

    def cell(self, server: str, concurrency: int) -> list[Block]:
        """The blocks of one server at one concurrency, by round."""
        found = [each for each in self.blocks if (each.server, each.concurrency) == (server, concurrency)]
        return sorted(found, key=lambda each: each.round)

    def spread(self, server: str, concurrency: int, metric: str) -> Spread:
        return Spread.of([getattr(each, metric) for each in self.cell(server, concurrency)])

    def paired(self, one: str, other: str, concurrency: int, compare: Callable[[Block, Block], float]) -> Spread:
        """Two servers compared within each round, then the median: what disturbs a round disturbs both."""
        pairs = zip(self.cell(one, concurrency), self.cell(other, concurrency), strict=True)
        return Spread.of([compare(a, b) for a, b in pairs])


@dataclass(frozen=True)
class Aim:
    """What was aimed for, what was measured, and whether that meets it. ``text`` names the aim, ``unit`` follows the number."""

    text: str
    limit: float
    at_most: bool
    measured: Spread
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.measured.median <= self.limit if self.at_most else self.measured.median >= self.limit


def aims(results: Results) -> list[Aim]:
    """The aims that these results can judge: those whose servers and concurrencies were measured."""
    servers, levels = set(results.servers()), results.concurrencies()
    found = []
    if {"ours", "bare"} <= servers and 1 in levels:
        ttft = results.paired("ours", "bare", 1, lambda ours, bare: ours.ttft_p50 - bare.ttft_p50)
        found.append(Aim("TTFT p50 above the bare server's at concurrency 1", 3.0, True, ttft, " ms"))
    if {"ours", "bare"} <= servers and 32 in levels:
        rate = results.paired("ours", "bare", 32, lambda ours, bare: ours.tokens_per_s / bare.tokens_per_s)
        found.append(Aim("Tokens/s, as a part of the bare server's, at concurrency 32", 0.97, False, rate))
    if "ours" in servers and 1 in levels:
        found.append(Aim("Network chunks per token at concurrency 1", 0.99, False, results.spread("ours", 1, "chunks_per_token")))
        per_event = Spread.of([each.chunks_per_token / each.events_per_token for each in results.cell("ours", 1)])
        found.append(Aim("Network chunks per event of the engine at concurrency 1", 0.99, False, per_event))
    if {"ours", "ray-llm"} <= servers and 1 in levels:
        times = results.paired("ray-llm", "ours", 1, lambda other, ours: other.ttft_p50 / ours.ttft_p50)
        found.append(Aim("TTFT p50 of `ray.serve.llm`, as a multiple of ours, at concurrency 1", 4.0, False, times))
    return found
