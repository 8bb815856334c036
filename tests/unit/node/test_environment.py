import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node.environment import choice, flag, integer, text


@pytest.mark.parametrize(("value", "expected"), [(None, "d"), ("", "d"), ("  ", "d"), (" x ", "x"), ("x", "x")])
def test_text(value: str | None, expected: str) -> None:
    assert text({} if value is None else {"N": value}, "N", "d") == expected


def test_text_without_a_default() -> None:
    assert text({}, "N") is None


@pytest.mark.parametrize(("value", "expected"), [("", "a"), ("b", "b"), (" B ", "b")])
def test_choice(value: str, expected: str) -> None:
    assert choice({"N": value}, "N", ("a", "b"), "a") == expected


def test_no_choice() -> None:
    with pytest.raises(UsageError, match="N is 'wrkr'; use head, worker or auto"):
        choice({"N": "wrkr"}, "N", ("head", "worker", "auto"), "auto")


@pytest.mark.parametrize(("value", "expected"), [("", None), ("0", 0), (" 7 ", 7), ("007", 7), ("10", 10)])
def test_integer(value: str, expected: int | None) -> None:
    assert integer({"N": value}, "N", low=0, high=10) == expected


@pytest.mark.parametrize("value", ["-1", "11", "x", "1.0", "1e1", "0x1", "²", "٣", "1_0", "9" * 5000])
def test_no_integer(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        integer({"N": value}, "N", low=0, high=10)
    assert str(caught.value) == f"N is {value!r}; use a whole number from 0 to 10."


@pytest.mark.parametrize(("value", "expected"), [("", False), ("1", True), ("TRUE", True), ("yes", True), ("off", False), ("No", False)])
def test_flag(value: str, expected: bool) -> None:
    assert flag({"N": value}, "N") is expected


def test_no_flag() -> None:
    with pytest.raises(UsageError, match="N is 'maybe'; use 1, true"):
        flag({"N": "maybe"}, "N")


@given(st.text())
def test_any_text_is_a_number_in_range_or_an_error(value: str) -> None:
    try:
        number = integer({"N": value}, "N", low=1, high=65535)
    except UsageError:
        return
    assert number is None or 1 <= number <= 65535
