"""The contract: what the product answers is what the engine's own server of the same version answers, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.engines import generated
from tests.engines.comparison import ROUTES
from tests.engines.profiles import VLLM
from tests.engines.servers import Pair
from tests.engines.shapes import Shape

pytestmark = pytest.mark.issue(3)
STATEFUL = {
    *("completion-long-prompt", "completion-long-prompt-again"),
    *("adapter-models", "adapter-late-models", "adapter-late", "adapter-gone", "adapter-unload", "adapter-unload-unknown"),
}
"""Shapes that send what another one sends, since the server's state lies between them."""
bounded = settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def cases(shapes: Iterable[Shape]) -> list[object]:
    """The shapes as parameters, profile by profile; only those of the smoke are in the quick tier."""
    order = list(VLLM.profiles)
    return [
        pytest.param(shape.profile, shape, id=shape.name, marks=() if shape.smoke else pytest.mark.full)
        for shape in sorted(shapes, key=lambda shape: order.index(shape.profile))
    ]


def test_the_list_of_shapes_is_worth_its_name() -> None:
    names = [shape.name for shape in VLLM.shapes]
    assert len(set(names)) == len(names) >= 40
    assert all(shape.reason for shape in VLLM.shapes)
    assert not ROUTES.keys() & {shape.path for shape in VLLM.shapes}
    assert {shape.profile for shape in VLLM.shapes} == set(VLLM.profiles)
    sent = {shape.name: repr((shape.profile, shape.method, shape.path, shape.body, shape.raw, shape.headers)) for shape in VLLM.shapes}
    repeated = {name for name, request in sent.items() if list(sent.values()).count(request) > 1}
    assert repeated == STATEFUL


@pytest.mark.parametrize(("pair", "shape"), cases(VLLM.shapes), indirect=["pair"])
def test_shape(pair: Pair, shape: Shape) -> None:
    answer = pair.compare(shape)
    assert (answer.status >= 400) or not shape.name.startswith("error-"), "no error at all"


@pytest.mark.full
@pytest.mark.parametrize(
    ("pair", "requests"),
    [
        pytest.param("generate", generated.CHATS, id="chats"),
        pytest.param("generate", generated.COMPLETIONS, id="completions"),
        pytest.param("generate", generated.TOKENIZE, id="tokens"),
        pytest.param("embed", generated.EMBEDDINGS, id="embeddings"),
    ],
    indirect=["pair"],
)
def test_generated(pair: Pair, requests: SearchStrategy[Shape]) -> None:
    """Good and bad requests alike; a generator that made only one kind would prove little."""
    seen = Counter[int]()

    @bounded
    @given(shape=requests)
    def compare(shape: Shape) -> None:
        seen[pair.compare(shape).status] += 1

    compare()
    assert seen[200] >= 10, seen
    assert seen[400] >= 10, seen
