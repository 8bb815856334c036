"""Markdown as this project writes it: tables whose cells cannot break them, and sizes as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table; columns whose numbers are in ``right`` are set to the right."""
    to_the_right = set(right)
    rule = ["---:" if column in to_the_right else "---" for column in range(len(head))]
    return "".join(f"| {' | '.join(cell(text) for text in row)} |\n" for row in (head, rule, *rows))


def cell(text: str) -> str:
    """A text in one line, its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """A text in code style."""
    return f"`{text}`"


def megabytes(count: int) -> str:
    """Bytes in megabytes of a million, as Docker counts: ``1,234.5 MB``, ``12 kB``."""
    if count < 100_000:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:,.1f} MB"


def shortened(text: str, limit: int) -> str:
    """A text of at most ``limit`` characters in one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
