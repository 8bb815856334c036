"""The number of copies follows the load, and no request fails on the way up or down."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from tests.containers import Cluster, Load, until

pytestmark = [pytest.mark.issue(5), pytest.mark.full]


def test_copies_come_with_load_and_go_without(tmp_path: Path, questions: dict[str, str]) -> None:
    file = tmp_path / "config.yaml"
    scaling = {"min": 1, "max": 2, "target_ongoing_requests": 4, "upscale_delay_s": 2, "downscale_delay_s": 10}
    file.write_text(yaml.safe_dump({"models": [{"source": "demo", "autoscaling": scaling, "engine_args": {"max_model_len": 2048}}]}))
    file.chmod(0o644)
    with Cluster(1, "compose/config.yaml", CONFIG=str(file)) as cluster:
        cluster.api.wait_ready()

        def copies() -> int:
            return int(cluster.api.health()["models"][0]["replicas"])

        assert copies() == 1
        with Load(cluster.api, 16, questions) as many:
            start = time.monotonic()
            until("a second copy", lambda: copies() == 2, 180)
            grown = time.monotonic() - start
            served = many.done
            until("requests to both", lambda: many.done > served + 200, 120)
        with Load(cluster.api, 1, questions) as few:
            start = time.monotonic()
            until("one copy again", lambda: copies() == 1, 180)
            shrunk = time.monotonic() - start
        assert many.failures == few.failures == []
        print(f"a second copy after {grown:.0f} s of load, one again {shrunk:.0f} s after it")
