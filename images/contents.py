"""What a layer weighs and what it mostly holds, from its entries."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from images.archive import Entry

SITE = re.compile(r"^opt/ray-serve-cai/venv/lib/python[\d.]+/site-packages/(.+)$")
INFO = re.compile(r"^(.+?)-[^-/]+\.(?:dist-info|data)$")
NAMESPACES = {"nvidia"}
"""Directories in site-packages that many distributions share."""
SHOWN = 3
LEAST = 0.05
"""The share of its layer that something must have to be named."""


@dataclass(frozen=True)
class Contents:
    """Bytes of all files, their number, and the heaviest things in it, the heaviest first."""

    size: int
    files: int
    holds: list[tuple[str, int]]


def contents(entries: Iterable[Entry]) -> Contents:
    """Add up a layer."""
    weights: Counter[str] = Counter()
    files = 0
    for entry in entries:
        if entry.info.isreg():
            weights[thing(entry.path)] += entry.info.size
            files += 1
    size = weights.total()
    heaviest = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    return Contents(size, files, [(name, weight) for name, weight in heaviest if weight >= LEAST * size])


def thing(path: str) -> str:
    """What a file belongs to: a package in site-packages, something of this project, or a directory of the system.

    Packages go by the name of their directory, which is what a layer has; the tables of distributions are made from metadata.
    """
    if site := SITE.match(path):
        parts = site[1].split("/")
        if parts[0] in NAMESPACES and len(parts) > 2:
            return "/".join(parts[:2])
        info = INFO.match(parts[0])
        return info[1] if info else parts[0].removesuffix(".libs")
    parts = path.split("/")
    depth = 4 if path.startswith("opt/ray-serve-cai/models/") else 3 if parts[0] == "opt" else 2
    return "/".join(parts[:depth])
