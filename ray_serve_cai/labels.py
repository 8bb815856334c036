"""Labels of a Ray node: the launcher sets them, replicas are placed by them."""

from __future__ import annotations

from collections.abc import Iterable

OURS = "rscai/"
"""What all of them begin with."""
ROLE = "rscai/role"
"""``head`` or ``worker``."""
ENGINE_PREFIX = "rscai/engine."
"""A node says by one label for each of its engines what it can run: ``rscai/engine.vllm=true``."""


def engine(name: str) -> dict[str, str]:
    """The label of a node that has this engine."""
    return {f"{ENGINE_PREFIX}{name}": "true"}


def engines(names: Iterable[str]) -> list[str]:
    """The engines that labels of these names stand for, sorted."""
    return sorted(name.removeprefix(ENGINE_PREFIX) for name in names if name.startswith(ENGINE_PREFIX))
