"""One pair of servers at a time: a machine with two cores runs no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.contracts import PAIRS
from tests.engines.lora import make
from tests.engines.servers import Pair, Pairs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one pair of servers follow each other, so that each pair starts once."""
    places = [place for place, item in enumerate(items) if name_of_pair(item) in PAIRS]
    ordered = sorted((items[place] for place in places), key=lambda item: PAIRS.index(name_of_pair(item)))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def name_of_pair(item: pytest.Item) -> str:
    """The pair of servers that a test asks for; empty for a test that asks for none."""
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
    with Pairs(adapters=adapters) as made:
        yield made


@pytest.fixture
def pair(request: pytest.FixtureRequest, pairs: Pairs) -> Pair:
    """The servers that the test's parameter names, as ENGINE:PROFILE."""
    return pairs.get(request.param)
