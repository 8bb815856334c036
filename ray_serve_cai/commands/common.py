"""What several commands need: the engines of a configuration, where state is, how much is logged, how findings are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ray_serve_cai.errors import ResourceError

if TYPE_CHECKING:
    from ray_serve_cai.config import Config
    from ray_serve_cai.engines.engine_config import EngineConfig
    from ray_serve_cai.node.doctor import Finding


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


def tell(findings: Iterable[Finding], *, as_json: bool, well: str, broken: str) -> int:
    """Print what a doctor finds, as it finds it; the exit code is 0 where nothing of it is an error.

    Args:
        well: the last line where there is no error.
        broken: where there is; the names of the checks follow.
    """
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            fix = f"\n{'':8} {'':11} fix: {finding.fix}" if finding.fix else ""
            print(f"{finding.level:8} {finding.check:11} {finding.fact}{fix}", flush=True)
    errors = [finding.check for finding in found if finding.level == "error"]
    if as_json:
        print(json.dumps([vars(finding) for finding in found], indent=2))
    else:
        print(f"{broken}: {', '.join(dict.fromkeys(errors))}" if errors else well)
    return ResourceError.exit_code if errors else 0
