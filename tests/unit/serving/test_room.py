from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ray_serve_cai.config import AutoscalingConfig
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.serving import room
from ray_serve_cai.state import NodeState

ALONE = replace(VLLM, name="alone", spans_nodes=False)
"""An engine that runs on one node only."""


def engine(name: str = "demo", **fields: Any) -> EngineConfig:
    given: dict[str, Any] = {"info": VLLM, "name": name, "model": "x", "arguments": {}}
    return EngineConfig(**given | fields)


def node(gpus: float = 0, cpus: float = 32, *, alive: bool = True, role: str = "worker", engines: tuple[str, ...] = ("vllm",)) -> NodeState:
    return NodeState(f"{role}-{gpus}-{cpus}", "10.0.0.1", alive, role, engines=engines, cpus=cpus, gpus=gpus)


def tp(ranks: int, **fields: Any) -> EngineConfig:
    return engine(ranks=ranks, gpus=ranks, **fields)


def scaled(low: int, high: int) -> dict[str, Any]:
    return {"replicas": low, "autoscaling": AutoscalingConfig.model_validate({"min": low, "max": high})}


def said_of(model: EngineConfig, nodes: list[NodeState]) -> str:
    """What is said of a model, nothing where it fits."""
    found = room.shortfalls([model], nodes)
    return found["demo"].said if found else ""


SENTENCES = [
    pytest.param(
        tp(8, nodes=2),
        [node(4), node(2)],
        "needs 2 nodes with 4 GPUs each; the cluster has 1 with 4 and 1 with 2; add nodes, or lower tensor_parallel_size.",
        id="one node of two is too small",
    ),
    pytest.param(
        tp(8),
        [node(4), node(4)],
        "needs 1 node with 8 GPUs; the cluster has 2 with 4; add nodes, or set nodes_per_replica: 2, which fits.",
        id="two nodes together would do",
    ),
    pytest.param(
        tp(6),
        [node(2), node(2), node(2), node(1)],
        "needs 1 node with 6 GPUs; the cluster has 3 with 2 and 1 with 1; add nodes, or set nodes_per_replica: 3, which fits.",
        id="three nodes together would do",
    ),
    pytest.param(
        tp(8, info=ALONE),
        [node(4, engines=("alone",)), node(4, engines=("alone",))],
        "needs 1 node with 8 GPUs; the cluster has 2 with 4; add nodes, or lower tensor_parallel_size.",
        id="two nodes would do for an engine that spans nodes",
    ),
    pytest.param(tp(1), [node(), node()], "needs 1 node with 1 GPU; the cluster has 2 with none; add nodes.", id="no GPU anywhere"),
    pytest.param(
        tp(4), [node(1)], "needs 1 node with 4 GPUs; the cluster has 1 with 1; add nodes, or lower tensor_parallel_size.", id="too few GPUs"
    ),
    pytest.param(
        tp(2),
        [node(2, alive=False), node(1)],
        "needs 1 node with 2 GPUs; the cluster has 1 with 1; add nodes, or lower tensor_parallel_size.",
        id="a dead node does not count",
    ),
    pytest.param(
        engine(),
        [],
        "needs 1 node with 1 CPU; the cluster has no node; add nodes, or lower cpus_per_replica.",
        id="no node at all",
    ),
    pytest.param(
        engine(),
        [node(alive=False), node(alive=False)],
        "needs 1 node with 1 CPU; the cluster has no node; add nodes, or lower cpus_per_replica.",
        id="dead nodes only",
    ),
    pytest.param(
        engine(),
        [node(engines=("sglang",)), node(engines=("echo", "sglang")), node(alive=False)],
        "engine 'vllm' is installed on no node; installed: echo, sglang; start a node from an image that has it.",
        id="the engine is on no node",
    ),
    pytest.param(
        tp(2),
        [node(1), node(1, engines=("sglang",)), node(1, engines=())],
        "needs 1 node with 2 GPUs; the cluster has 1 with 1 (2 more without engine 'vllm'); add nodes, or lower tensor_parallel_size.",
        id="the engine is only on some nodes",
    ),
    pytest.param(
        engine(cpus=4),
        [node(cpus=2), node(cpus=2), node(cpus=1)],
        "needs 1 node with 4 CPUs; the cluster has 2 with 2 and 1 with 1; add nodes, or lower cpus_per_replica.",
        id="too few CPUs",
    ),
    pytest.param(
        engine(cpus=1),
        [node(cpus=0.5)],
        "needs 1 node with 1 CPU; the cluster has 1 with 0.5; add nodes, or lower cpus_per_replica.",
        id="one CPU, and half of one",
    ),
    pytest.param(
        engine(cpus=2.5),
        [node(cpus=0), node(cpus=2)],
        "needs 1 node with 2.5 CPUs; the cluster has 1 with 2 and 1 with none; add nodes, or lower cpus_per_replica.",
        id="no CPU offered",
    ),
    pytest.param(
        engine(cpus=4, replicas=3),
        [node(cpus=4), node(cpus=6)],
        "there is room for 2 of 3 replicas; each needs 1 node with 4 CPUs; the cluster has 1 with 6 and 1 with 4; add nodes, or ask for 2.",
        id="room for some",
    ),
    pytest.param(
        engine(cpus=4, nodes=2, ranks=2, replicas=2),
        [node(cpus=4), node(cpus=4), node(cpus=4)],
        "there is room for 1 of 2 replicas; each needs 2 nodes with 4 CPUs each; the cluster has 3 with 4; add nodes, or ask for 1.",
        id="room for some that span nodes",
    ),
    pytest.param(
        engine(),
        [node(engines=())],
        "engine 'vllm' is installed on no node; installed: none; start a node from an image that has it.",
        id="an engine is on no node",
    ),
    pytest.param(
        tp(1, replicas=3),
        [node(1), node(1)],
        "there is room for 2 of 3 replicas; each needs 1 node with 1 GPU; the cluster has 2 with 1; add nodes, or ask for 2.",
        id="GPUs are short and CPUs are not",
    ),
    pytest.param(
        tp(4),
        [node(2), node(8, engines=("sglang",))],
        "needs 1 node with 4 GPUs; the cluster has 1 with 2 (1 more without engine 'vllm'); add nodes, or lower tensor_parallel_size.",
        id="GPUs of nodes without the engine do not count",
    ),
    pytest.param(
        engine(ranks=2, cpus=8),
        [node(cpus=4)],
        "needs 1 node with 8 CPUs; the cluster has 1 with 4; add nodes, or lower cpus_per_replica.",
        id="several ranks without GPUs",
    ),
    pytest.param(
        tp(2, cpus=8),
        [node(2, cpus=4)],
        "needs 1 node with 2 GPUs and 8 CPUs; the cluster has 1 with 2 GPUs and 4 CPUs; add nodes, or lower cpus_per_replica.",
        id="GPUs are enough and CPUs are not",
    ),
    pytest.param(
        tp(4, nodes=2),
        [node(4)],
        "needs 2 nodes with 2 GPUs each; the cluster has 1 with 4; add nodes, or set nodes_per_replica: 1, which fits.",
        id="one node would do",
    ),
    pytest.param(
        engine(cpus=4, **scaled(2, 4)),
        [node(cpus=4)],
        "there is room for 1 of 2 replicas; each needs 1 node with 4 CPUs; the cluster has 1 with 4; add nodes, or ask for 1.",
        id="copies by load",
    ),
    pytest.param(
        engine(labelled=False, cpus=4),
        [node(cpus=2, engines=())],
        "needs 1 node with 4 CPUs; the cluster has 1 with 2; add nodes, or lower cpus_per_replica.",
        id="nodes without labels",
    ),
]


@pytest.mark.parametrize(("model", "nodes", "sentence"), SENTENCES)
def test_what_is_missing(model: EngineConfig, nodes: list[NodeState], sentence: str) -> None:
    found = room.shortfalls([model], nodes)
    assert {name: missing.said for name, missing in found.items()} == {"demo": sentence}


@pytest.mark.parametrize(("cpus", "share", "replicas"), [(6, 1.2, 5), (3, 0.1, 30), (4, 0.4, 10)])
def test_fractions_of_cpus_add_up(cpus: float, share: float, replicas: int) -> None:
    model = engine(cpus=share, replicas=replicas)
    assert room.shortfalls([model], [node(cpus=cpus)]) == {}
    assert room.place(model, [node(cpus=cpus)], replicas + 1)[0] == replicas


@pytest.mark.parametrize("nodes", [[node(4, cpus=2)], [node(4, cpus=2), node(2, cpus=8)]], ids=["alone", "and CPUs elsewhere"])
def test_where_gpus_are_enough_and_cpus_are_not_both_are_told(nodes: list[NodeState]) -> None:
    said = said_of(tp(4, cpus=8), nodes)
    assert said.startswith("needs 1 node with 4 GPUs and 8 CPUs; the cluster has 1 with 4 GPUs and 2 CPUs")
    assert ("1 with 2 GPUs and 8 CPUs" in said) is (len(nodes) > 1)


@pytest.mark.parametrize(
    ("models", "nodes", "needs", "has", "free"),
    [
        ([tp(4), tp(4, name="second")], [node(4)], "needs 1 node with 4 GPUs; ", "1 with 4", "1 with none"),
        ([tp(1), tp(2, name="second")], [node(1), node(2)], "", "", ""),
        ([tp(2), tp(2, name="second")], [node(2), node(1)], "needs 1 node with 2 GPUs; ", "1 with 2 and 1 with 1", "1 with 1 and 1 with none"),
        ([engine(cpus=3), engine("second", cpus=2)], [node(cpus=4)], "needs 1 node with 2 CPUs; ", "1 with 4", "1 with 1"),
        (
            [tp(2, replicas=2), tp(2, name="second", replicas=2)],
            [node(4), node(2)],
            "there is room for 1 of 2 replicas; each needs 1 node with 2 GPUs",
            "1 with 4 and 1 with 2, of which is free: ",
            "1 with 2 and 1 with none",
        ),
    ],
    ids=["all taken", "smallest first", "the larger one taken", "CPUs", "some taken"],
)  # fmt: skip
def test_a_model_gets_what_those_before_it_leave(
    models: list[EngineConfig], nodes: list[NodeState], needs: str, has: str, free: str
) -> None:
    found = room.shortfalls(models, nodes)
    assert list(found) == (["second"] if has else [])
    if has:
        assert found["second"].said.startswith(needs)
        assert has in found["second"].said
        assert f", of which is free: {free}; " in found["second"].said


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([node(2, role="head"), node(2)], [2, 0]),
        ([node(2, role="head"), node(8)], [2, 6]),
        ([node(2, role="head"), node(1)], [0, 1]),
        ([node(4), node(2), node(3)], [4, 0, 3]),
    ],
    ids=["the worker first", "even where the head leaves less behind", "the head where there is no other", "where least is left"],
)
def test_where_a_replica_goes(nodes: list[NodeState], left: list[float]) -> None:
    placed, after = room.place(tp(2), nodes, 1)
    assert (placed, [one.gpus for one in after]) == (1, left)


def test_what_spans_nodes_leaves_them_even() -> None:
    equal = [node(2), node(2), node(2)]
    assert room.place(tp(2, nodes=2), equal, 3)[0] == 3
    assert [one.gpus for one in room.place(tp(2, nodes=2), [node(4), node(1), node(3)], 1)[1]] == [3, 1, 2]


def test_a_replica_without_gpus_leaves_them_to_others() -> None:
    _, left = room.place(engine(), [node(8, cpus=4), node(cpus=4)], 1)
    assert [one.cpus for one in left] == [4, 3]


@pytest.mark.parametrize(
    ("ray", "expected"),
    [
        (
            {
                "NodeID": "n1",
                "NodeManagerAddress": "10.0.0.1",
                "Alive": True,
                "Labels": {"rscai/role": "head", "rscai/engine.vllm": "true"},
                "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1e9},
            },
            NodeState("n1", "10.0.0.1", True, "head", 3, ("vllm",), 4, 2),
        ),
        ({"NodeID": "n2", "Alive": False, "Resources": {}}, NodeState("n2", "", False, replicas=3)),
    ],
    ids=["alive", "dead"],
)
def test_a_node_as_ray_lists_it(ray: dict[str, Any], expected: NodeState) -> None:
    assert room.node_state(ray, 3) == expected


COUNTS = st.integers(0, 6)
NODES = st.lists(
    st.builds(
        lambda gpus, cpus, alive, role, engines: node(gpus, cpus, alive=alive, role=role, engines=engines),
        COUNTS,
        COUNTS.map(lambda number: number / 2),
        st.booleans() | st.just(True),
        st.sampled_from(["head", "worker"]),
        st.sampled_from([("vllm",), ("vllm",), ("sglang",), ()]),
    ),
    max_size=5,
)
ENGINES = st.builds(
    lambda nodes, gpus, cpus, replicas, labelled: engine(
        ranks=nodes * max(gpus, 1), nodes=nodes, gpus=nodes * gpus, cpus=cpus, replicas=replicas, labelled=labelled
    ),
    st.integers(1, 3),
    st.integers(0, 4),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(1, 5),
    st.booleans(),
)


@given(ENGINES, NODES, st.integers(0, 6))
def test_no_more_is_placed_than_is_wanted_and_no_more_taken_than_there_is(model: EngineConfig, nodes: list[NodeState], wanted: int) -> None:
    placed, left = room.place(model, nodes, wanted)
    alive = [one for one in nodes if one.alive]
    taken = [(before.cpus - after.cpus, before.gpus - after.gpus) for before, after in zip(alive, left, strict=True)]
    assert 0 <= placed <= wanted
    assert all(one.cpus >= 0 and one.gpus >= 0 for one in left)
    assert sum(cpus for cpus, _ in taken) == placed * model.nodes * model.cpus
    assert sum(gpus for _, gpus in taken) == placed * model.gpus
    assert all(not cpus or room.has_engine(model, one) for (cpus, _), one in zip(taken, alive, strict=True))


@given(ENGINES, NODES, NODES)
def test_further_nodes_never_make_it_worse(model: EngineConfig, nodes: list[NodeState], more: list[NodeState]) -> None:
    assert room.place(model, nodes + more, 6)[0] >= room.place(model, nodes, 6)[0]


@given(st.lists(ENGINES, max_size=3), NODES)
def test_something_is_missing_just_where_not_every_replica_has_room(models: list[EngineConfig], nodes: list[NodeState]) -> None:
    models = [model.model_copy(update={"name": f"m{number}"}) for number, model in enumerate(models)]
    found, left = room.shortfalls(models, nodes), nodes
    for model in models:
        placed, left = room.place(model, left, model.replicas)
        missing = found.get(model.name)
        assert (missing.placed if missing else model.replicas) == placed


@given(ENGINES, NODES)
def test_a_sentence_is_one(model: EngineConfig, nodes: list[NodeState]) -> None:
    said = said_of(model, nodes)
    assume(said)
    assert said.endswith(".")
    assert "\n" not in said
    assert "  " not in said
    assert ";;" not in said
    assert "1 nodes" not in said
    assert "1 GPUs" not in said
    assert "1 CPUs" not in said


@given(ENGINES, NODES)
def test_what_is_advised_fits(model: EngineConfig, nodes: list[NodeState]) -> None:
    said = said_of(model, nodes)
    for key, field in (("set nodes_per_replica: ", "nodes"), ("ask for ", "replicas")):
        if key in said:
            number = int(said.partition(key)[2].split(",")[0].rstrip("."))
            advised = model.model_copy(update={field: number})
            assert room.place(advised, nodes, 1 if field == "nodes" else number)[0] >= 1
