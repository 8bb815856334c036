"""Prometheus's text format: several expositions become one, each sample with labels that say whence it came. Pure.

Lines are passed on as they are: a cluster's metrics are some thousand lines for each node, and no value is read here.
Format: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OF_FAMILY = ("_bucket", "_sum", "_count", "_total", "_created", "_info")


class _Family:
    """A metric's own lines and its samples."""

    def __init__(self) -> None:
        self.described: dict[str, str] = {}
        self.samples: list[str] = []


def merge(expositions: Iterable[tuple[Mapping[str, str], str]]) -> str:
    """One exposition; each part's labels are added to its samples, but for those that a sample has itself.

    What is no line of the format is left out: one broken source breaks no other.
    """
    families: dict[str, _Family] = {}
    for labels, text in expositions:
        added = [(f'{name}="', f'{name}="{escaped(value)}"') for name, value in labels.items()]
        current = ""
        for line in text.split("\n"):
            if line.startswith("#"):
                current = _describe(line, families) or current
                continue
            found = _NAME.match(line)
            if found is None:
                continue
            name = found[0]
            of_current = name == current or (name.startswith(current) and name[len(current) :] in _OF_FAMILY)
            sample = _labelled(line, len(name), added)
            if sample:
                families.setdefault(current if current and of_current else name, _Family()).samples.append(sample)
    lines = [line for family in families.values() if family.samples for line in (*family.described.values(), *family.samples)]
    return "".join(f"{line}\n" for line in lines)


def _describe(line: str, families: dict[str, _Family]) -> str:
    """Keep the first description of each kind; the name of the family that it is of."""
    words = line.split(" ", 3)
    if len(words) < 4 or words[0] != "#" or words[1] not in ("HELP", "TYPE"):
        return ""
    families.setdefault(words[2], _Family()).described.setdefault(words[1], line)
    return words[2]


def _labelled(line: str, end: int, added: Iterable[tuple[str, str]]) -> str:
    rest = line[end:]
    if rest.startswith("{"):
        new = [label for start, label in added if f"{{{start}" not in rest and f",{start}" not in rest]
        own = rest[1:].lstrip()
        comma = "," if new and not own.startswith("}") else ""
        return f"{line[:end]}{{{','.join(new)}{comma}{own}"
    if not rest.startswith(" "):
        return ""
    new = [label for _, label in added]
    return f"{line[:end]}{{{','.join(new)}}}{rest}" if new else line


def escaped(value: str) -> str:
    """A label's value as the format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def gauge(name: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """The exposition of a metric of our own."""
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        told = ",".join(f'{label}="{escaped(said)}"' for label, said in labels.items())
        lines.append(f"{name}{{{told}}} {value:g}" if told else f"{name} {value:g}")
    return "".join(f"{line}\n" for line in lines)
