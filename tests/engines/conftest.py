"""One pair of servers at a time: a machine with two cores runs no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.lora import make
from tests.engines.profiles import VLLM
from tests.engines.servers import Pair, Pairs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one profile follow each other, so that each pair of servers starts once."""
    order = list(VLLM.profiles)
    places = [place for place, item in enumerate(items) if profile(item) in VLLM.profiles]
    ordered = sorted((items[place] for place in places), key=lambda item: order.index(profile(item)))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def profile(item: pytest.Item) -> str:
    """The profile that a test asks for; empty for a test that asks for none."""
    spec = getattr(item, "callspec", None)
    return str(spec.params.get("pair", "")) if spec else ""


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of adapters that the containers mount: one for the start, one for later."""
    directory = tmp_path_factory.mktemp("adapters")
    directory.chmod(0o755)
    make(directory / "strange", seed=1)
    make(directory / "late", seed=2)
    return directory


@pytest.fixture(scope="package")
def pairs(adapters: Path) -> Iterator[Pairs]:
    """Pairs of servers, of which one runs."""
    with Pairs(VLLM, adapters=adapters) as made:
        yield made


@pytest.fixture
def pair(request: pytest.FixtureRequest, pairs: Pairs) -> Pair:
    """The servers of the profile that the test's parameter names."""
    return pairs.get(request.param)
