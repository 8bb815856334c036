"""Cloudera AI: its API, and clusters made of its applications."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_serve_cai.cai.manager import CAIClusterManager

__all__ = ["CAIClusterManager"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.manager"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
