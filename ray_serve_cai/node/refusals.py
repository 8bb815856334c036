"""What a head remembers of the nodes that did not join it, for whoever waits for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

logger = logging.getLogger(__name__)

KEPT_S = 150.0
"""A refused node asks every minute; one that is silent for longer has joined, or is gone."""
MOST = 64
MOST_CHARACTERS = 500


class Refusals:
    """Address -> why the node with this address does not join; the latest of at most `MOST`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: dict[str, tuple[float, str]] = {}

    def note(self, ip: str, reason: str) -> None:
        """Remember it; what is new about a node is logged."""
        line = " ".join(reason.split())[:MOST_CHARACTERS]
        if self.current().get(ip) != line:
            logger.warning("node %s is refused: %s", ip, line)
        self._noted.pop(ip, None)
        self._noted[ip] = (self._clock(), line)
        while len(self._noted) > MOST:
            self._noted.pop(next(iter(self._noted)))

    def current(self, joined: Collection[str] = ()) -> dict[str, str]:
        """Those that still stand; ``joined`` are the addresses of nodes that have come in since."""
        since = self._clock() - KEPT_S
        return {ip: reason for ip, (when, reason) in self._noted.items() if when >= since and ip not in joined}
