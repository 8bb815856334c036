"""Percentiles, medians over rounds, pairs within a round, and whether an aim is met."""

import doctest
from pathlib import Path
from typing import Any

import pytest

from tests.bench import containers, plot, report, results
from tests.bench.containers import bare_command, cpu_file, cpu_seconds, kinds, machine_cpu_s
from tests.bench.load import Run, Sample
from tests.bench.results import Block, Cpu, Results, Spread, aims, block, percentile

ABOUT = {"servers": ["bare", "ours", "ray-llm"], "rounds": 3, "tokens": 64, "date": "2026-01-02", "cpu": "a CPU", "cores": 2}
ABOUT |= {
    "memory_gib": 4,
    "kernel": "6",
    "vllm": "0",
    "ray": "2",
    "commit": "abc",
    "command": "make",
    "model": "demo",
    "other_containers": 0,
}


def a_block(server: str, concurrency: int, round_: int = 0, **changes: Any) -> Block:
    numbers = {name: 1.0 for name in Block.__dataclass_fields__ if name not in ("server", "concurrency", "round")}
    return Block(**{**numbers, "server": server, "concurrency": concurrency, "round": round_, **changes})


def a_result(*blocks: Block) -> Results:
    return Results(dict(ABOUT), {"bare": 0.01, "ours": 0.1}, blocks)


@pytest.mark.parametrize("module", [results, report, plot, containers])
def test_examples_in_docstrings(module: Any) -> None:
    done = doctest.testmod(module)
    assert done.attempted
    assert done.failed == 0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([7], 0.5, 7), ([1, 2], 0.5, 1), (range(1, 101), 0.95, 95), (range(1, 101), 0.99, 99), ([3, 1, 2], 0, 1), ([3, 1, 2], 1, 3)],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_block_is_made_of_samples() -> None:
    samples = (Sample(0.010, (0.001, 0.003), 3, 3, 3, 5, 4), Sample(0.020, (0.002, 0.0), 3, 2, 1, 3, 2))
    made = block("ours", 2, 1, Run(samples, wall_s=0.5, client_cpu_s=0.05), Cpu(server_s=0.3, machine_s=0.4))
    assert (made.requests, made.tokens, made.tokens_per_s) == (2, 6, 12.0)
    assert (made.ttft_p50, made.ttft_p95, made.gap_p50, made.gap_p99) == (10.0, 20.0, 1.0, 3.0)
    assert (made.events_per_token, made.chunks_per_token, made.reads_per_token) == (0.8333, 0.6667, 1.0)
    assert (made.cpu_per_1000_tokens, made.client_cores, made.other_cores) == (50.0, 0.1, 0.1)


def test_spread_is_the_median_with_its_ends() -> None:
    got = a_result(*(a_block("ours", 8, n, ttft_p50=value) for n, value in enumerate((5.0, 1.0, 3.0)))).spread("ours", 8, "ttft_p50")
    assert got == Spread(3.0, 1.0, 5.0)


def test_pairs_are_made_within_a_round() -> None:
    ours = [a_block("ours", 1, n, ttft_p50=value) for n, value in enumerate((11.0, 31.0, 22.0))]
    bare = [a_block("bare", 1, n, ttft_p50=value) for n, value in enumerate((10.0, 30.0, 20.0))]
    got = a_result(*reversed(bare), *ours).paired("ours", "bare", 1, lambda a, b: a.ttft_p50 - b.ttft_p50)
    assert got == Spread(1.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("ours", "met"),
    [
        ({"ttft_p50": 12.9, "tokens_per_s": 97.0}, [True, True, True, True, True]),
        ({"ttft_p50": 13.1, "tokens_per_s": 96.9, "chunks_per_token": 0.5}, [False, False, False, False, False]),
    ],
)
def test_aims(ours: dict[str, float], met: list[bool]) -> None:
    got = a_result(
        *(a_block("bare", level, ttft_p50=10.0, tokens_per_s=100.0) for level in (1, 32)),
        *(a_block("ours", level, **ours) for level in (1, 32)),
        *(a_block("ray-llm", level, ttft_p50=52.0) for level in (1, 32)),
    )
    assert [aim.met for aim in aims(got)] == met


def test_what_was_not_measured_is_not_judged() -> None:
    assert aims(a_result(a_block("bare", 1), a_block("bare", 32))) == []


def test_results_survive_the_file() -> None:
    got = a_result(a_block("bare", 1), a_block("ours", 1))
    assert Results.from_dict(got.as_dict() | {"blocks": [*got.as_dict()["blocks"]]}) == got


def test_servers_stand_in_the_order_that_was_asked_for() -> None:
    assert a_result(a_block("ray-llm", 1), a_block("bare", 1)).servers() == ["bare", "ray-llm"]


def test_the_page_keeps_what_is_outside_of_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end measured -->\nafter\n", encoding="utf-8")
    report.write(a_result(a_block("bare", 1), a_block("ours", 1)), page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- measured -->\n")
    assert text.endswith("<!-- end measured -->\nafter\n")
    assert "old" not in text
    assert "| ray-serve-cai | 1.0 (1.0 to 1.0) |" in text
    assert "\u2014" not in text


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="page.md has no"):
        report.write(a_result(a_block("bare", 1)), page)


def test_every_server_gets_the_same_engine_arguments() -> None:
    made = kinds()
    spoken = made["ours"].variables["RSCAI_ENGINE_ARGS"]
    assert made["ray-llm"].variables["BENCH_ENGINE_ARGS"] == spoken
    assert made["bare"].command == made["bare-mp"].command == bare_command(containers.ENGINE_ARGUMENTS)
    assert {kind.variables["OMP_NUM_THREADS"] for kind in made.values()} == {"1"}


@pytest.mark.parametrize(
    ("membership", "file", "text"),
    [
        ("4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n", "cpu,cpuacct/docker/1/cpuacct.usage", "2000000000\n"),
        ("3:cpuacct:/docker/1\n0::/docker/1\n", "cpuacct/docker/1/cpuacct.usage", "2000000000\n"),
        ("0::/system.slice/docker-1.scope\n", "system.slice/docker-1.scope/cpu.stat", "usage_usec 2000000\nuser_usec 7\n"),
    ],
)
def test_cpu_time_is_that_of_the_container(tmp_path: Path, membership: str, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert cpu_file(membership, tmp_path) == tmp_path / file
    assert cpu_seconds(text) == 2.0


def test_the_machine_s_cpu_time_leaves_out_idle_and_waiting(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 10 20 9999 888 3 7 5 0 0\ncpu0 1 1 1 1\n", encoding="utf-8")
    assert machine_cpu_s(tmp_path / "stat") == pytest.approx(1.4, rel=0.01)
