from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import state
from ray_serve_cai.state import PHASES, ClusterState, ModelState, NodeState

READY = ModelState("a", "vllm", ready=True, state="ready", replicas=1)
LOADING = ModelState("b", "vllm", state="loading weights")


@pytest.mark.parametrize(
    ("models", "ready"),
    [((), False), ((LOADING,), False), ((READY, LOADING), False), ((READY,), True)],
)
def test_ready_is_all(models: tuple[ModelState, ...], ready: bool) -> None:
    assert ClusterState(models=models).ready is ready


def test_only_living_nodes_count() -> None:
    assert ClusterState(nodes=(NodeState("1", "10.0.0.1", True), NodeState("2", "10.0.0.2", False))).alive == 1


def test_before_anything_was_written(tmp_path: Path) -> None:
    assert state.read(tmp_path / "state.json") == ClusterState()
    assert ClusterState().phase in PHASES


def test_writing_leaves_one_file(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    state.write(file, ClusterState(phase="ready"))
    state.write(file, ClusterState(phase="degraded"))
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert state.read(file).phase == "degraded"


TEXT = st.text(max_size=10)
CLUSTERS = st.builds(
    ClusterState,
    phase=st.sampled_from(PHASES),
    detail=TEXT,
    models=st.lists(st.builds(ModelState, TEXT, TEXT, st.booleans(), TEXT, st.integers(0, 9), TEXT), max_size=3).map(tuple),
    nodes=st.lists(st.builds(NodeState, TEXT, TEXT, st.booleans(), TEXT, st.integers(0, 9), st.tuples(TEXT)), max_size=3).map(tuple),
    expected=st.integers(1, 9),
    was_ready=st.booleans(),
)


@given(CLUSTERS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, cluster: ClusterState) -> None:
    file = tmp_path_factory.getbasetemp() / "state.json"
    state.write(file, cluster)
    assert state.read(file) == cluster
