"""The contract: what the product answers is what the engine's own server of the same version answers, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.engines import generated
from tests.engines.comparison import ROUTES
from tests.engines.contract import Contract
from tests.engines.contracts import CONTRACTS
from tests.engines.servers import Pair
from tests.engines.shapes import Shape

ISSUES = {"vllm": 3, "sglang": 4}
STATEFUL = {
    *("completion-long-prompt", "completion-long-prompt-again"),
    *("adapter-models", "adapter-late-models", "adapter-late", "adapter-gone", "adapter-unload", "adapter-unload-unknown"),
}
"""Shapes that send what another one sends, since the server's state lies between them."""
bounded = settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def marks(engine: str, *, smoke: bool) -> list[pytest.MarkDecorator]:
    """The issue of the engine's contract; only what is in the smoke is in the quick tier."""
    return [pytest.mark.issue(ISSUES[engine]), *([] if smoke else [pytest.mark.full])]


def cases(contracts: Iterable[Contract]) -> list[object]:
    """The shapes as parameters, profile by profile."""
    return [
        pytest.param(
            f"{contract.engine}:{profile}", shape, id=f"{contract.engine}-{shape.name}", marks=marks(contract.engine, smoke=shape.smoke)
        )
        for contract in contracts
        for profile in contract.profiles
        for shape in contract.shapes
        if shape.profile == profile
    ]


@pytest.mark.parametrize(
    "contract", [pytest.param(each, id=each.engine, marks=marks(each.engine, smoke=True)) for each in CONTRACTS.values()]
)
def test_the_list_of_shapes_is_worth_its_name(contract: Contract) -> None:
    names = [shape.name for shape in contract.shapes]
    assert len(set(names)) == len(names) >= 40
    assert all(shape.reason for shape in contract.shapes)
    assert not ROUTES.keys() & {shape.path for shape in contract.shapes}
    assert not contract.answered_otherwise.keys() & set(names)
    assert contract.accepted | contract.batched | contract.unsteady.keys() <= {*names, "generated"}
    assert {shape.profile for shape in contract.shapes} == set(contract.profiles)
    sent = {shape.name: repr((shape.profile, shape.method, shape.path, shape.body, shape.raw, shape.headers)) for shape in contract.shapes}
    repeated = {name for name, request in sent.items() if list(sent.values()).count(request) > 1}
    assert repeated == STATEFUL & set(names)


@pytest.mark.parametrize(("pair", "shape"), cases(CONTRACTS.values()), indirect=["pair"])
def test_shape(pair: Pair, shape: Shape) -> None:
    answer = pair.compare(shape)
    if shape.name.startswith("error-"):
        assert (answer.status < 400) == (shape.name in pair.contract.accepted), answer.status


@pytest.mark.parametrize(
    ("pair", "requests"),
    [
        *(
            pytest.param(f"{engine}:{profile}", requests, id=f"{engine}-{name}", marks=marks(engine, smoke=False))
            for engine in CONTRACTS
            for profile, name, requests in (
                ("generate", "chats", generated.CHATS),
                ("generate", "completions", generated.COMPLETIONS),
                ("generate", "tokens", generated.TOKENIZE),
                ("embed", "embeddings", generated.EMBEDDINGS),
            )
        ),
    ],
    indirect=["pair"],
)
def test_generated(pair: Pair, requests: SearchStrategy[Shape]) -> None:
    """Good and bad requests alike; a generator that made only one kind would prove little."""
    seen = Counter[int]()
    kinds = requests.filter(lambda shape: not pair.contract.left_out(shape))

    @bounded
    @given(shape=kinds)
    def compare(shape: Shape) -> None:
        seen[pair.compare(shape).status] += 1

    compare()
    assert seen[200] >= 10, seen
    assert seen[400] >= 10, seen
