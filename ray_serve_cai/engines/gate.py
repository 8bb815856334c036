"""How many requests a replica lets to its engine, how many wait, and when one that was turned away may come again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator

from ray_serve_cai.engines.engine_config import Limits

LONGEST_WAIT_S = 60
"""What ``Retry-After`` says at most; OpenAI's clients heed no larger value."""
_WEIGHT = 0.1
"""Of the newest request in the mean of how long they take."""


class Gate:
    """First come, first served; for one event loop. ``limits`` may be replaced at any time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean_s = 1.0

    def renew(self, limits: Limits) -> None:
        """Other limits, from now on."""
        self.limits = limits
        self._admit()

    def is_full(self) -> bool:
        """Whether the next request must be turned away."""
        return self._running >= self.limits.max_concurrent and len(self._waiting) >= self.limits.max_queued

    def retry_after_s(self) -> int:
        """Seconds until what waits now will have begun, as long as requests have taken lately."""
        turns = (len(self._waiting) + 1) / self.limits.max_concurrent
        return max(1, min(LONGEST_WAIT_S, math.ceil(turns * self._mean_s)))

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place at the engine, waited for where there is none. A client that leaves gives its place to the next."""
        await self._enter()
        start = time.monotonic()
        try:
            yield
        finally:
            self._mean_s += _WEIGHT * (time.monotonic() - start - self._mean_s)
            self._running -= 1
            self._admit()

    async def _enter(self) -> None:
        if self._running < self.limits.max_concurrent and not self._waiting:
            self._running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # its turn may have come and passed
                    self._waiting.remove(turn)
            else:
                self._running -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._running < self.limits.max_concurrent:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._running += 1
                turn.set_result(None)
