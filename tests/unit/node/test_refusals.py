import logging

import pytest

from ray_serve_cai.node.refusals import KEPT_S, MOST, MOST_CHARACTERS, Refusals


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_stands(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    with caplog.at_level(logging.WARNING):
        refusals.note("10.0.0.2", "no\nmodel")
        refusals.note("10.0.0.2", "no model")
        refusals.note("10.0.0.3", "another token")
    assert caplog.messages == ["node 10.0.0.2 is refused: no model", "node 10.0.0.3 is refused: another token"]
    assert refusals.current() == {"10.0.0.2": "no model", "10.0.0.3": "another token"}
    assert refusals.current({"10.0.0.3"}) == {"10.0.0.2": "no model"}
    clock.now += KEPT_S + 1
    assert refusals.current() == {}


def test_it_stays_small() -> None:
    refusals = Refusals(Clock())
    for number in range(MOST + 5):
        refusals.note(f"10.0.0.{number}", "x" * 10_000)
    assert len(refusals.current()) == MOST
    assert "10.0.0.4" not in refusals.current()
    assert {len(reason) for reason in refusals.current().values()} == {MOST_CHARACTERS}
