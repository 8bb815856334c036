"""Which configuration a head serves after a restart: the one it was last brought to, unless it is given another one since."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from ray_serve_cai.config import Config
from ray_serve_cai.serving.mailbox import replace_file

logger = logging.getLogger(__name__)


def keep(path: Path, given: Config, deployed: Config) -> None:
    """Remember what was deployed on top of what the head was given."""
    replace_file(path, json.dumps({"given": _digest(given), "config": deployed.model_dump(exclude_unset=True)}))


def current(path: Path, given: Config) -> Config:
    """What is to be served by a head that is given this configuration."""
    try:
        kept = json.loads(path.read_text())
        if kept["given"] != _digest(given):
            logger.info("the configuration given is another one than before the last update; it is served")
            path.unlink()
            return given
        config = Config.model_validate(kept["config"])
    except FileNotFoundError:
        return given
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s cannot be read (%s); the configuration given is served", path, error)
        return given
    logger.info("the configuration of the last update is served")
    return config


def _digest(config: Config) -> str:
    return hashlib.sha256(config.model_dump_json(exclude_unset=True).encode()).hexdigest()
