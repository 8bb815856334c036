"""A replica whose ranks stand on two worker applications, after their preflight."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.cai.conftest import Site
from tests.containers import run

pytestmark = [pytest.mark.issue(9), pytest.mark.full]
QUESTION = "What is ray-serve-cai?"
MODEL = {"source": "demo", "tensor_parallel_size": 2, "nodes_per_replica": 2, "cpus_per_replica": 2}


def test_ranks_on_two_applications_after_the_preflights_word(
    site: Site, questions: dict[str, str], took: Callable[[str, float], None]
) -> None:
    file = site.config("tp", [MODEL], workers={"cpu": {"count": 2, "cpu": 2, "memory": 6}}, shared_memory_gb=1)
    began = time.monotonic()
    site.good("up", "-f", str(file), "--timeout", "380", timeout=420)
    took("cai up, one replica over two workers", began)
    answer = site.ask("tp")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == questions[QUESTION]
    ranks = {}
    for name in ("tp-cpu-1", "tp-cpu-2"):
        processes = run("docker", "exec", site.nodes.ids[site.application(name)["id"]], "ps", "-eo", "args").stdout
        ranks[name] = processes.count("VLLM::Worker_TP")
    assert ranks == {"tp-cpu-1": 1, "tp-cpu-2": 1}
    words = site.files["ray-serve-cai/tp.logs/tp-cpu-1.log"] + site.files["ray-serve-cai/tp.logs/tp-cpu-2.log"]
    assert b"is reached, and reaches this node: 32 MiB in" in words
    for name in ranks:
        log = site.files[f"ray-serve-cai/tp.logs/{name}.log"].decode()
        assert log.index("preflight: ") < log.index("joining the head")
    site.good("down", "-f", str(file))
