"""What becomes of each model of a running cluster, and when it has come there; Serve's side is in tests/compose/test_update.py."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.config import AutoscalingConfig
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import SGLANG, VLLM
from ray_serve_cai.errors import ConfigError, RayServeCaiError, ResourceError
from ray_serve_cai.serving import rollout
from ray_serve_cai.serving.rollout import IN_PLACE, ONE_BY_ONE, PAUSE, SURGE, UNCHANGED, Step
from ray_serve_cai.state import NodeState

SMALL = {"gpus": 1, "ranks": 1}
ONE_BY_ONE_SAID = "no room for more: one replica after the other ends and is replaced"


def engine(name: str = "demo", **fields: Any) -> EngineConfig:
    given: dict[str, Any] = {"info": VLLM, "name": name, "model": "x", "arguments": {}, "ranks": 2, "gpus": 2}
    return EngineConfig(**given | fields)


def changed(name: str = "demo", **fields: Any) -> EngineConfig:
    return engine(name, **{"arguments": {"max_model_len": 512}} | fields)


def scaled(low: int, high: int) -> dict[str, Any]:
    return {"replicas": low, "autoscaling": AutoscalingConfig.model_validate({"min": low, "max": high})}


def nodes(*gpus: float) -> list[NodeState]:
    return [NodeState(f"n{number}", "10.0.0.1", True, "worker", engines=("vllm",), cpus=64, gpus=one) for number, one in enumerate(gpus)]


def plan_one(old: EngineConfig, new: EngineConfig, running: int, free: list[NodeState], *, allow_downtime: bool = False) -> Step:
    (step,) = rollout.plan([old], [new], {old.name: running}, nodes(8, 8), free, allow_downtime=allow_downtime)
    return step


def test_what_stays_as_it_is_is_not_touched() -> None:
    old = engine(replicas=2, surge=50)
    assert plan_one(old, engine(replicas=2), 1, nodes()) == Step(old, UNCHANGED, "unchanged", 0)


IN_PLACE_STEPS = [
    pytest.param({"replicas": 2}, {"replicas": 4}, 2, nodes(2, 2), 4, id="more, with room for all"),
    pytest.param({"replicas": 4}, {"replicas": 2}, 4, nodes(), 2, id="fewer"),
    pytest.param({"replicas": 2}, {"replicas": 2, "max_concurrent": 5}, 2, nodes(), 2, id="other limits"),
    pytest.param({"replicas": 2}, {"replicas": 2, "drain_s": 5}, 2, nodes(), 2, id="another grace"),
    pytest.param({"replicas": 2}, scaled(2, 4), 2, nodes(), 2, id="by load from now on"),
    pytest.param(scaled(2, 4), {"replicas": 3}, 4, nodes(), 3, id="no longer by load"),
    pytest.param(scaled(1, 4), scaled(2, 8), 3, nodes(), 2, id="other bounds"),
    pytest.param({}, {"replicas": 2}, 0, nodes(4), 2, id="none runs yet"),
]


@pytest.mark.parametrize(("before", "after", "running", "free", "expected"), IN_PLACE_STEPS)
def test_what_serve_changes_in_place(
    before: dict[str, Any], after: dict[str, Any], running: int, free: list[NodeState], expected: int
) -> None:
    new = engine(**after)
    assert plan_one(engine(**before), new, running, free) == Step(new, IN_PLACE, f"{new.copies()}, changed in place", expected)


@pytest.mark.parametrize(
    ("before", "after", "running", "free", "expected"),
    [(1, 3, 1, nodes(2, 1), 2), (2, 9, 2, nodes(), 2), (3, 4, 2, nodes(2), 3)],
    ids=["room for some", "room for none", "fewer run than were wanted"],
)
def test_more_copies_than_there_is_room_for_are_told_and_tried(
    before: int, after: int, running: int, free: list[NodeState], expected: int
) -> None:
    step = plan_one(engine(replicas=before), engine(replicas=after), running, free)
    assert (step.kind, step.engine.replicas, step.expected) == (IN_PLACE, after, expected)
    assert step.said.startswith(
        f"{after} replicas, changed in place; there is room for {expected} of {after} replicas; each needs 1 node with 2 GPUs"
    )


@pytest.mark.parametrize(
    ("wanted", "running", "free", "surge", "said", "expected"),
    [
        pytest.param({}, 1, nodes(2), 100, "all new replicas start before old ones end", 1, id="one, with room"),
        pytest.param({"replicas": 3}, 3, nodes(2, 4), 100, "all new replicas start before old ones end", 3, id="room for all"),
        pytest.param({"replicas": 3}, 3, nodes(2), 33, "new replicas start before old ones end, 1 at a time", 3, id="a third"),
        pytest.param({"replicas": 3}, 3, nodes(2, 3), 66, "new replicas start before old ones end, 2 at a time", 3, id="two thirds"),
        pytest.param({"replicas": 8}, 8, nodes(6), 37, "new replicas start before old ones end, 3 at a time", 8, id="three eighths"),
        pytest.param({"replicas": 4}, 2, nodes(4), 50, "new replicas start before old ones end, 2 at a time", 4, id="more than before"),
        pytest.param({"replicas": 1}, 3, nodes(2), 100, "all new replicas start before old ones end", 1, id="fewer than before"),
        pytest.param({"replicas": 2, **SMALL}, 2, nodes(1, 1), 100, "all new replicas start before old ones end", 2, id="smaller ones"),
        pytest.param(
            {"gpus": 4, "ranks": 4}, 1, nodes(4), 100, "all new replicas start before old ones end", 1, id="a larger one, with room"
        ),
    ],
)
def test_with_room_new_replicas_start_before_old_ones_end(
    wanted: dict[str, Any], running: int, free: list[NodeState], surge: int, said: str, expected: int
) -> None:
    new = changed(**wanted)
    step = plan_one(engine(replicas=running), new, running, free)
    assert step == Step(new.model_copy(update={"surge": surge}), SURGE, said, expected)


@given(st.integers(1, 100), st.integers(1, 100))
def test_serve_starts_no_more_than_there_is_room_for(replicas: int, room: int) -> None:
    step = plan_one(engine(replicas=replicas), changed(replicas=replicas), replicas, nodes(2 * room))
    assert 1 <= step.engine.surge <= 100
    started = (step.engine.surge * replicas + 99) // 100  # as Serve rounds (ray/serve/_private/deployment_state.py)
    assert 1 <= started <= room


@pytest.mark.parametrize(
    ("wanted", "running", "said", "expected"),
    [
        (scaled(1, 4), 3, "new replicas start before old ones end, 1 at a time", 1),
        (scaled(1, 2), 3, "new replicas start before old ones end, 1 at a time", 1),
        (scaled(4, 8), 3, "new replicas start before old ones end, 1 at a time", 4),
        (scaled(1, 4), 1, "all new replicas start before old ones end", 1),
    ],
    ids=["as many as run", "no more than may", "no fewer than must", "one"],
)
def test_copies_by_load_are_replaced_as_many_as_there_are(wanted: dict[str, Any], running: int, said: str, expected: int) -> None:
    step = plan_one(engine(**scaled(1, 4)), changed(**wanted), running, nodes(2))
    assert (step.kind, step.said, step.expected) == (SURGE, said, expected)


@pytest.mark.parametrize("wanted", [{}, SMALL], ids=["the same", "a smaller one"])
@pytest.mark.parametrize("allow_downtime", [False, True])
def test_without_room_one_of_several_ends_after_the_other(wanted: dict[str, Any], allow_downtime: bool) -> None:
    new = changed(replicas=3, **wanted)
    assert plan_one(engine(replicas=3), new, 3, nodes(), allow_downtime=allow_downtime) == Step(new, ONE_BY_ONE, ONE_BY_ONE_SAID, 3)


REFUSED = [
    pytest.param(engine(), changed(), 1, nodes(1), "one runs", "needs 1 node with 2 GPUs", id="one"),
    pytest.param(engine(replicas=2), changed(), 1, nodes(), "one runs", "needs 1 node with 2 GPUs", id="one of two runs"),
    pytest.param(engine(replicas=2), changed(), 2, nodes(), "ones run", "needs 1 node with 2 GPUs", id="fewer than before"),
    pytest.param(
        engine(replicas=2),
        changed(replicas=2, ranks=4, gpus=4),
        2,
        nodes(2),
        "ones run",
        "needs 1 node with 4 GPUs",
        id="larger ones",
    ),
    pytest.param(
        engine(replicas=2),
        changed(replicas=2, cpus=60),
        2,
        [NodeState("n", "ip", True, engines=("vllm",), cpus=8, gpus=8)],
        "ones run",
        "needs 1 node with 2 GPUs and 60 CPUs",
        id="more CPUs",
    ),
    pytest.param(
        engine(replicas=2, nodes=1, ranks=4, gpus=4),
        changed(replicas=2, nodes=2, ranks=4, gpus=4),
        2,
        nodes(),
        "ones run",
        "needs 2 nodes with 2 GPUs each",
        id="over more nodes",
    ),
]


@pytest.mark.parametrize(("old", "new", "running", "free", "which", "needs"), REFUSED)
def test_what_would_not_answer_for_a_while_is_refused_unless_that_is_accepted(
    old: EngineConfig, new: EngineConfig, running: int, free: list[NodeState], which: str, needs: str
) -> None:
    with pytest.raises(ResourceError) as caught:
        plan_one(old, new, running, free)
    said = str(caught.value)
    assert said.startswith(f"model 'demo' has no room for a new replica while the old {which}: {needs}; the cluster has 2 with 8")
    assert ", of which is free: " in said
    assert said.endswith("; or accept that it does not answer for a while, with --allow-downtime.")
    step = plan_one(old, new, running, free, allow_downtime=True)
    assert (step.engine, step.kind, step.expected) == (new, PAUSE, new.replicas)
    assert step.said.startswith(f"no room for more: {running} replica")


@pytest.mark.parametrize("allow_downtime", [False, True])
@pytest.mark.parametrize(
    ("free", "lacks", "expected"),
    [
        (nodes(8), "", 2),
        (nodes(2), "; there is room for 1 of 2 replicas; each needs 1 node with 2 GPUs; the cluster has 2 with 8", 1),
        (nodes(), "; needs 1 node with 2 GPUs; the cluster has 2 with 8, of which is free: none", 1),
    ],
    ids=["room", "room for some", "no room"],
)
def test_where_none_runs_nothing_is_lost(free: list[NodeState], lacks: str, expected: int, allow_downtime: bool) -> None:
    new = changed(replicas=2)
    step = plan_one(engine(replicas=2), new, 0, free, allow_downtime=allow_downtime)
    assert (step.engine, step.kind, step.expected) == (new, PAUSE, expected)
    assert step.said.startswith(f"2 replicas to start; none runs now{lacks}")
    assert lacks or step.said.endswith("now")


@pytest.mark.parametrize("running", [0, 1])
def test_one_replica_is_told_in_the_singular(running: int) -> None:
    for new in (changed(), engine(max_concurrent=5)):
        said = plan_one(engine(), new, running, nodes(), allow_downtime=True).said
        assert "1 replica" in said
        assert "1 replicas" not in said


def test_what_fits_nowhere_is_refused_even_where_a_pause_is_accepted() -> None:
    with pytest.raises(ResourceError) as caught:
        plan_one(engine(), changed(ranks=64, gpus=64), 1, nodes(), allow_downtime=True)
    assert str(caught.value).startswith("model 'demo' fits nowhere: needs 1 node with 64 GPUs; the cluster has 2 with 8; ")


def test_nodes_that_are_gone_are_not_told() -> None:
    here, *gone = nodes(2, 8, 8)
    all_of_them = [here, *(replace(one, alive=False) for one in gone)]
    with pytest.raises(ResourceError, match="the cluster has 1 with 2, of which is free: 1 with none; "):
        rollout.plan([engine()], [changed()], {"demo": 1}, all_of_them, nodes(0), allow_downtime=False)


@pytest.mark.parametrize("after", [["b", "a"], ["a"], ["a", "b", "c"], ["a", "c"]])
def test_models_and_their_order_stay(after: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        rollout.plan([engine("a"), engine("b")], [engine(name) for name in after], {}, nodes(8), nodes(8), allow_downtime=True)
    assert str(caught.value).startswith(f"the cluster serves a, b, and the new configuration has {', '.join(after)}; ")


@pytest.mark.parametrize(
    ("free", "surges"),
    [(nodes(4, 4), [100, 100]), (nodes(4, 2), [100, 50]), (nodes(2), [50, 0]), (nodes(), [0, 0])],
    ids=["room for both", "less for the second", "some for the first", "room for none"],
)
def test_two_models_share_the_free_room(free: list[NodeState], surges: list[int]) -> None:
    old, new = [engine(name, replicas=2) for name in "ab"], [changed(name, replicas=2) for name in "ab"]
    steps = rollout.plan(old, new, {"a": 2, "b": 2}, nodes(8, 8), free, allow_downtime=False)
    assert [(step.engine.name, step.engine.surge) for step in steps] == list(zip("ab", surges, strict=True))
    assert [step.kind for step in steps] == [SURGE if surge else ONE_BY_ONE for surge in surges]


def test_further_copies_of_one_model_take_the_room_that_another_would_have_had() -> None:
    old = [engine("a"), engine("b")]
    with pytest.raises(ResourceError, match="model 'b' has no room for a new replica while the old one runs: needs 1 node with 2 GPUs"):
        rollout.plan(old, [engine("a", replicas=2), changed("b")], {"a": 1, "b": 1}, nodes(8), nodes(2), allow_downtime=False)
    steps = rollout.plan(old, [engine("a", replicas=2), changed("b")], {"a": 1, "b": 1}, nodes(8), nodes(4), allow_downtime=False)
    assert [step.kind for step in steps] == [IN_PLACE, SURGE]


def test_a_model_of_which_none_runs_yet_takes_room_from_the_next() -> None:
    old, new = [engine("a"), engine("b", replicas=2)], [changed("a"), changed("b", replicas=2)]
    steps = rollout.plan(old, new, {"a": 0, "b": 2}, nodes(8), nodes(2), allow_downtime=False)
    assert [step.kind for step in steps] == [PAUSE, ONE_BY_ONE]


def test_a_model_that_stays_leaves_the_room_to_others() -> None:
    steps = rollout.plan(
        [engine("a"), engine("b")], [engine("a"), changed("b")], {"a": 1, "b": 1}, nodes(8), nodes(2), allow_downtime=False
    )
    assert [step.kind for step in steps] == [UNCHANGED, SURGE]


WANTED = st.builds(
    lambda gpus, nodes_, replicas, heavy, scale: (changed if heavy else engine)(
        ranks=gpus * nodes_, gpus=gpus * nodes_, nodes=nodes_, **(scaled(replicas, replicas + 2) if scale else {"replicas": replicas})
    ),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)


@given(WANTED, WANTED, st.integers(0, 6), st.lists(st.integers(0, 8), max_size=4), st.booleans())
def test_any_change_has_a_step_or_a_typed_error(old: EngineConfig, new: EngineConfig, running: int, free: list[int], accept: bool) -> None:
    try:
        step = plan_one(old, new, running, nodes(*free), allow_downtime=accept)
    except RayServeCaiError as error:
        assert isinstance(error, ResourceError)  # noqa: PT017
    else:
        assert step.kind in (UNCHANGED, IN_PLACE, SURGE, ONE_BY_ONE, PAUSE)
        assert (step.engine == old) if step.kind == UNCHANGED else (step.engine.model_copy(update={"surge": 0}) == new)
        assert (step.engine.surge > 0) is (step.kind == SURGE)
        assert rollout.done(step, {}, []) is (step.expected == 0)


def application(*found: tuple[str, str], status: str = "RUNNING") -> dict[str, Any]:
    """Serve's view: (replica's id, its state)."""
    listed = [{"replica_id": replica, "state": state} for replica, state in found]
    return {"status": status, "deployments": {"engine": {"replicas": listed}}}


OLD, OTHER_OLD = ("o1", "RUNNING"), ("o2", "RUNNING")
NEW, OTHER_NEW = ("n1", "RUNNING"), ("n2", "RUNNING")
LEAVING, COMING, COMING_TOO = ("o1", "STOPPING"), ("n1", "STARTING"), ("n3", "STARTING")


@pytest.mark.parametrize("kind", [SURGE, ONE_BY_ONE, PAUSE])
@pytest.mark.parametrize(
    ("seen", "expected", "done"),
    [
        pytest.param(application(NEW), 1, True, id="only new ones"),
        pytest.param(application(NEW, OTHER_NEW), 2, True, id="all new ones"),
        pytest.param(application(NEW, LEAVING), 1, True, id="old ones finish their streams"),
        pytest.param(application(OLD), 1, False, id="not begun"),
        pytest.param(application(OLD, NEW, status="DEPLOYING"), 1, False, id="both"),
        pytest.param(application(OLD, NEW), 1, False, id="both, and Serve content"),
        pytest.param(application(OTHER_OLD, NEW), 2, False, id="half"),
        pytest.param(application(NEW, status="DEPLOYING"), 1, True, id="Serve not content"),
        pytest.param(application(NEW, OTHER_NEW, COMING_TOO, status="DEPLOYING"), 2, True, id="more than there is room for"),
        pytest.param({"status": "DEPLOYING", "deployments": {}}, 1, False, id="Serve builds it"),
        pytest.param(application(COMING, LEAVING, status="DEPLOYING"), 1, False, id="starting"),
        pytest.param(application(NEW), 2, False, id="too few"),
        pytest.param(application(status="DEPLOYING"), 1, False, id="none"),
        pytest.param({}, 1, False, id="not there"),
    ],
)
def test_when_replicas_are_replaced(kind: str, seen: dict[str, Any], expected: int, done: bool) -> None:
    assert rollout.done(Step(changed(replicas=expected), kind, "", expected), seen, ["o1", "o2"]) is done


@pytest.mark.parametrize(
    ("fields", "seen", "expected", "done"),
    [
        ({"replicas": 2}, application(OLD, OTHER_OLD), 2, True),
        ({"replicas": 2}, application(OLD, NEW), 2, True),
        ({"replicas": 2}, application(OLD, COMING), 2, False),
        ({"replicas": 1}, application(OLD, OTHER_OLD), 1, False),
        ({"replicas": 1}, application(("o2", "STOPPING"), OLD), 1, True),
        ({"replicas": 2}, application(OLD, ("o2", "PENDING_MIGRATION")), 2, True),
        ({"replicas": 3}, application(OLD, NEW, OTHER_NEW), 2, True),
        ({"replicas": 3}, application(OLD, NEW, OTHER_NEW, ("n3", "RUNNING")), 2, False),
        (scaled(1, 3), application(OLD, OTHER_OLD), 1, True),
        (scaled(1, 1), application(OLD, OTHER_OLD), 1, False),
        (scaled(2, 3), application(OLD), 2, False),
        ({}, {}, 1, False),
    ],
)
def test_when_a_change_in_place_is_done(fields: dict[str, Any], seen: dict[str, Any], expected: int, done: bool) -> None:
    assert rollout.done(Step(engine(**fields), IN_PLACE, "", expected), seen, ["o1", "o2"]) is done


@pytest.mark.parametrize(
    ("step", "seen", "old"),
    [
        pytest.param(plan_one(engine(), engine(replicas=3), 1, nodes(2)), application(OLD, NEW, OTHER_NEW), ["o1"], id="more run than seemed to fit"),
        pytest.param(plan_one(engine(**scaled(1, 4)), changed(**scaled(1, 4)), 3, nodes(2)), application(NEW), ["o1", "o2", "o3"], id="the load fell"),
        pytest.param(
            plan_one(engine(replicas=3), changed(replicas=3), 2, nodes()),
            application(NEW, OTHER_NEW, COMING_TOO, status="DEPLOYING"),
            ["o1", "o2", "o3"],
            id="only some fit, as before",
        ),
    ],
)  # fmt: skip
def test_a_planned_step_comes_to_its_end(step: Step, seen: dict[str, Any], old: list[str]) -> None:
    assert rollout.done(step, seen, old)


def test_what_stays_is_done_whatever_it_does() -> None:
    assert rollout.done(Step(engine(), UNCHANGED, "unchanged", 0), {}, [])


@pytest.mark.parametrize(
    ("kind", "seen", "said"),
    [
        (SURGE, application(OLD, OTHER_OLD, NEW, COMING), "1 of 2 new replicas run"),
        (ONE_BY_ONE, application(LEAVING, COMING), "0 of 2 new replicas run"),
        (PAUSE, {}, "0 of 2 new replicas run"),
        (IN_PLACE, application(OLD, COMING), "1 of 2 replicas run"),
        (IN_PLACE, application(OLD, NEW), "2 of 2 replicas run"),
    ],
)
def test_how_far_it_is(kind: str, seen: dict[str, Any], said: str) -> None:
    assert rollout.progress(Step(changed(replicas=2), kind, "", 2), seen, ["o1", "o2"]) == said


def test_another_engine_is_another_replica() -> None:
    other = changed(info=SGLANG, replicas=2)
    both = [replace(one, engines=("vllm", "sglang")) for one in nodes(8, 8)]

    def kind(free: list[NodeState]) -> str:
        (step,) = rollout.plan([engine(replicas=2)], [other], {"demo": 2}, both, free, allow_downtime=False)
        return step.kind

    assert kind(both) == SURGE
    with pytest.raises(
        ResourceError, match="no room for a new replica while the old ones run: needs 1 node with 2 GPUs; the cluster has 2 with 8"
    ):
        kind([])


def test_an_engine_that_no_node_has_is_told_as_such() -> None:
    with pytest.raises(ResourceError) as caught:
        plan_one(engine(), changed(info=SGLANG), 1, nodes(8), allow_downtime=True)
    why = "engine 'sglang' is installed on no node; installed: vllm; start a node from an image that has it."
    assert str(caught.value) == f"model 'demo' fits nowhere: {why}"


@pytest.mark.parametrize("new", [engine(replicas=2), changed()], ids=["what Serve would change in place", "what starts anew"])
def test_a_deployment_of_another_distribution_may_not_answer_while_it_changes(new: EngineConfig) -> None:
    foreign = replace(VLLM, name="theirs", deployment_factory="theirs:Factory")
    old, new = (one.model_copy(update={"info": foreign}) for one in (engine(), new))
    with pytest.raises(ConfigError) as caught:
        plan_one(old, new, 1, nodes(8, 8))
    assert str(caught.value).startswith("model 'demo': engine 'theirs' makes its own Serve deployment")
    assert str(caught.value).endswith("; accept that with --allow-downtime.")
    step = plan_one(old, new, 1, nodes(8, 8), allow_downtime=True)
    assert step == Step(new, PAUSE, "the engine's own deployment changes as it will", 1)
    assert plan_one(old, old, 1, nodes()).kind == UNCHANGED
