"""What several commands need: the engines of a configuration, where state is, how much is logged."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_serve_cai.config import Config
    from ray_serve_cai.engines.engine_config import EngineConfig


def builder(drain_s: int) -> Callable[[Config], list[EngineConfig]]:
    """What makes the engines of a configuration, with what this image has as defaults."""
    from ray_serve_cai.node import manifest
    from ray_serve_cai.serving import app

    contents = manifest.read()
    return lambda wanted: app.engine_configs(wanted, default_engine=contents.engine, device=contents.device, drain_s=drain_s)


def state_file() -> Path:
    return Path(os.environ.get("RSCAI_STATE_FILE") or "/tmp/ray-serve-cai/state.json")


def installed_engines() -> list[str]:
    from ray_serve_cai.engines.registry import get_registry

    return get_registry().installed()


def log_level(env: Mapping[str, str] = os.environ) -> str:
    from ray_serve_cai.node.environment import choice

    return choice(env, "RSCAI_LOG_LEVEL", ("debug", "info", "warning", "error"), "info")


def log_format(env: Mapping[str, str] = os.environ) -> str:
    from ray_serve_cai import logs
    from ray_serve_cai.node.environment import choice

    return choice(env, "RSCAI_LOG_FORMAT", logs.FORMATS, logs.TEXT)
