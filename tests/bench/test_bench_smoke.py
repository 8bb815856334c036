"""The benchmark runs from end to end: few requests, two servers, no judgement of a time."""

import json
import sys
from pathlib import Path

import pytest

from tests.containers import run


@pytest.mark.full
def test_a_short_benchmark_measures_the_bare_server_and_ours(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    size = ("--concurrency", "1", "--rounds", "1", "--requests", "3", "--per-stream", "3", "--quiet", "0", "--repeat", "0")
    done = run(sys.executable, "-m", "tests.bench", "--servers", "bare,ours,ours-ingress", *size, "--json", str(file), timeout=600)
    blocks = {block["server"]: block for block in json.loads(file.read_text(encoding="utf-8"))["blocks"]}
    assert set(blocks) == {"bare", "ours", "ours-ingress"}
    for block in blocks.values():
        assert (block["requests"], block["tokens"]) == (3, 192)
        assert 0 < block["ttft_p50"] <= block["ttft_p95"]
        assert 0 < block["chunks_per_token"] <= 1
        assert block["cpu_per_1000_tokens"] > 0
    assert "| ray-serve-cai |" in done.stdout
    left = run("docker", "ps", "--all", "--quiet", "--filter", "name=rscai-bench-ours-").stdout.split()
    assert left == [], "the benchmark removes its containers"
