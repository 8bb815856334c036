"""Slurm's compressed lists of hosts, ``gpu[01-04,7],login``, as names; a container has no ``scontrol`` to ask. Pure."""

from __future__ import annotations

import re
from itertools import product

LONGEST = 100_000
"""Hosts that a list may name; a range of more is a typing error, and would take the memory."""
_ITEM = re.compile(r"(?:[^\[\],\s]|\[[^\[\]]*\])+")
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def expand(text: str) -> list[str]:
    """The hosts in the order of the list; ``a[08-10]`` keeps its zeros, ``r[1-2]n[1-2]`` is every pair, the last part changing first.

    Raises:
        ValueError: it is no such list; the message says which part is wrong.
    """
    hosts: list[str] = []
    position = 0
    while True:
        found = _ITEM.match(text, position)
        if not found:
            raise ValueError(f"no host at {text[position : position + 20]!r}")
        parts = [_numbers(numbers) if plain is None else [plain] for numbers, plain in _parts(found[0])]
        total = 1
        for part in parts:
            total *= len(part)
        if len(hosts) + total > LONGEST:
            raise ValueError(f"more than {LONGEST} hosts")
        hosts += ["".join(chosen) for chosen in product(*parts)]
        position = found.end()
        if position == len(text):
            return hosts
        if text[position] != ",":
            raise ValueError(f"{text[position]!r} at {text[position : position + 20]!r}")
        position += 1


def _parts(item: str) -> list[tuple[str, str | None]]:
    """(numbers, None) for what stood in brackets, ("", text) for the rest."""
    return [(found[1], None) if found[2] is None else ("", found[2]) for found in _PART.finditer(item)]


def _numbers(text: str) -> list[str]:
    made: list[str] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if not found:
            raise ValueError(f"{part!r} is no number and no range")
        first, last = found[1], found[2] or found[1]
        if int(last) < int(first):
            raise ValueError(f"{part!r} runs backwards")
        if len(made) + int(last) - int(first) >= LONGEST:
            raise ValueError(f"more than {LONGEST} hosts")
        made += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return made
