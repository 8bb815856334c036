import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.node import doubts
from ray_serve_cai.node.address import Address


def test_a_name_that_nobody_reads() -> None:
    said = doubts.of({"RSCAI_HEAD_ADRESS": "secret", "RSCAI_FOO_BAR": "1", "RSCAI_ROLE": "head", "OTHER": "1"}, "head", None)
    assert said == (
        "RSCAI_FOO_BAR is set, and no variable of this name is read; docs/configuration.md lists those that are.",
        "RSCAI_HEAD_ADRESS is set, and no variable of this name is read; did you mean RSCAI_HEAD_ADDRESS?",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "LocalHost"])
def test_a_head_that_nobody_else_reaches(host: str) -> None:
    assert "no other machine reaches; set RSCAI_HEAD_ADDRESS" in doubts.of({}, "worker", Address(host, 6379))[0]
    assert doubts.of({}, "single", Address(host, 6379)) == ()


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "head"])
def test_a_head_that_others_may_reach(host: str) -> None:
    assert doubts.of({}, "worker", Address(host, 6379)) == ()


@given(st.dictionaries(st.text(), st.text()))
def test_no_environment_is_too_odd(env: dict[str, str]) -> None:
    assert isinstance(doubts.of(env, "head", None), tuple)
