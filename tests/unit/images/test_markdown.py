"""Markdown's small parts."""

from __future__ import annotations

import pytest

from images import markdown

pytestmark = pytest.mark.issue(7)


def test_table() -> None:
    made = markdown.table(("Name", "Size"), [("a|b\nc", "1"), ("d", "2")], right=(1,))
    assert made == "| Name | Size |\n| --- | ---: |\n| a\\|b c | 1 |\n| d | 2 |\n"


@pytest.mark.parametrize(("count", "text"), [(0, "0 kB"), (1499, "1 kB"), (100_000, "0.1 MB"), (2_092_102_837, "2,092.1 MB")])
def test_megabytes(count: int, text: str) -> None:
    assert markdown.megabytes(count) == text


def test_shortened() -> None:
    assert markdown.shortened("a  b\nc", 5) == "a b c"
    assert markdown.shortened("abcdefgh", 6) == "abc..."
