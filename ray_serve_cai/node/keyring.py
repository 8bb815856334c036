"""The API keys of a running head: written for the front door before it starts, and renewed whenever their source changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ray_serve_cai.errors import ConfigError, ResourceError
from ray_serve_cai.node.access import Key, Maps

logger = logging.getLogger(__name__)

WATCH_S = 2.0


class Keys(Protocol):
    """Where API keys come from."""

    def read(self) -> Sequence[Key]:
        """The keys as they are now.

        Raises:
            ConfigError: they cannot be used.
        """

    def stamp(self) -> object:
        """Another value whenever they may have changed; None where they are not there."""


class Keyring:
    """Keys for models in this order, in the front door's directory."""

    def __init__(self, keys: Keys, models: Sequence[str], directory: Path) -> None:
        self._keys, self._models, self._directory = keys, models, directory
        self._known: object = None

    def write(self) -> None:
        """Write what the front door reads when it starts.

        Raises:
            ConfigError: the keys cannot be used.
        """
        self._known = self._keys.stamp()
        maps = self._maps()
        maps.write()
        _tell(maps)

    async def watch(self, commands: Path) -> None:
        """Renew them for ever, by HAProxy's socket ``commands``; keys that cannot be used change nothing."""
        while True:
            await asyncio.sleep(WATCH_S)
            stamp = await asyncio.to_thread(self._keys.stamp)
            if stamp in (None, self._known):
                continue
            try:
                maps = self._maps()
                await maps.renew(commands)
            except ConfigError as error:
                logger.error("the API keys stay as they were: %s", error)
            except ResourceError as error:
                logger.error("the API keys are tried again: %s", error)
                continue
            else:
                _tell(maps)
            self._known = stamp

    def _maps(self) -> Maps:
        return Maps.of(self._keys.read(), self._models, self._directory)


def _tell(maps: Maps) -> None:
    logger.info("API keys: %s", ", ".join(maps.names.values()))
