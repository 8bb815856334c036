"""The one-shot service of compose/cpu.yaml; tests/compose/test_fetch.py runs it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.issue(6)


@pytest.fixture
def services() -> dict[str, Any]:
    file = Path(__file__).parents[3] / "compose/cpu.yaml"
    return dict(yaml.safe_load(file.read_text())["services"])


def test_the_one_shot_asks_the_hub_and_the_nodes_need_not(services: dict[str, Any]) -> None:
    assert services["fetch"]["environment"] == {"HF_TOKEN": "${HF_TOKEN:-}", "HF_ENDPOINT": "${HF_ENDPOINT:-}"}
    for node in ("head", "worker"):
        assert services["fetch"]["environment"].items() < services[node]["environment"].items()
        assert services[node]["environment"]["HF_HUB_OFFLINE"] == "${HF_HUB_OFFLINE:-}"


def test_the_one_shot_runs_only_when_asked_and_once(services: dict[str, Any]) -> None:
    fetch = services["fetch"]
    assert (fetch["profiles"], fetch["restart"], fetch["healthcheck"]) == (["fetch"], "no", {"disable": True})
    assert fetch["volumes"] == services["head"]["volumes"]
    assert fetch["entrypoint"][-2:] == ["ray-serve-cai", "fetch"]
