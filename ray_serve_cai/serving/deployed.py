"""Which configuration a head serves after a restart: the one it was last brought to, unless it is given another one since."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from ray_serve_cai import private_file
from ray_serve_cai.config import Config
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import RayServeCaiError

logger = logging.getLogger(__name__)


def keep(path: Path, given: Config, deployed: Config) -> None:
    """Remember what was deployed on top of what the head was given."""
    private_file.write(path, json.dumps({"given": _digest(given), "config": deployed.model_dump(exclude_unset=True)}))


def current(path: Path, given: Config, build: Callable[[Config], list[EngineConfig]]) -> tuple[Config, list[EngineConfig]]:
    """What is to be served by a head that is given this configuration, and its engines.

    Raises:
        RayServeCaiError: the configuration that is given cannot be built.
    """
    kept = _kept(path, given)
    if kept is not None:
        try:
            engines = build(kept)
        except RayServeCaiError as error:
            logger.warning("the configuration of the last update, in %s, cannot be served now (%s); the one given is", path, error)
        else:
            logger.info("the configuration of the last update is served")
            return kept, engines
    return given, build(given)


def _kept(path: Path, given: Config) -> Config | None:
    try:
        kept = json.loads(path.read_text())
        if kept["given"] != _digest(given):
            logger.info("the configuration given is another one than before the last update; it is served")
            path.unlink()
            return None
        return Config.model_validate(kept["config"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s cannot be read (%s); the configuration given is served", path, error)
        return None


def _digest(config: Config) -> str:
    return hashlib.sha256(config.model_dump_json(exclude_unset=True).encode()).hexdigest()
