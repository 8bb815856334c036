"""How long nobody got an answer: a request to each model through the front door, five times a second, from start to end."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ray_serve_cai.node.address import Address

INTERVAL_S = 0.2
TIMEOUT_S = 3.0
ANSWER = "answer"
REFUSED = "connection refused"
NOT_YET = "503"


@dataclass(frozen=True)
class Sample:
    """One request: when it began and ended, on the monotonic clock, and what came of it."""

    start: float
    end: float
    outcome: str


@dataclass(frozen=True)
class Silence:
    """The longest time between two answers, seconds, and how it divides into what clients saw, by its name."""

    seconds: float
    seen: dict[str, float]

    def __str__(self) -> str:
        parts = ", ".join(f"{seconds:.1f} s {outcome}" for outcome, seconds in self.seen.items())
        return f"no answer for {self.seconds:.1f} s" + (f" ({parts})" if parts else "")


def longest_silence(samples: Sequence[Sample]) -> Silence:
    """From the end of one answer to the end of the next; a silence that has not ended lasts to the last sample.

    Each sample without an answer stands for the time since the one before it ended.
    """
    best = Silence(0.0, {})
    last: float | None = None
    seen: dict[str, float] = {}
    for index, sample in enumerate(samples):
        begun = samples[index - 1].end if index else sample.start
        if sample.outcome != ANSWER:
            seen[sample.outcome] = seen.get(sample.outcome, 0.0) + sample.end - begun
        if last is not None and sample.end - last > best.seconds:
            best = Silence(sample.end - last, dict(seen))
        if sample.outcome == ANSWER:
            last, seen = sample.end, {}
    return best


class Probe:
    """Asks one model of a cluster in a thread of its own, for as long as the block lasts.

    The engine's list of models is asked for: it takes no place in a batch, and only a replica that has warmed up gives it. Whatever the
    engine itself answers counts, a refusal for want of a key, too.

    Args:
        door: where the front door is now; it may move when the head's container is replaced.
        path: the model's, as `ray_serve_cai.state.models_path`.
    """

    def __init__(self, door: Callable[[], Address | None], path: str) -> None:
        self._door = door
        self._path = f"{path}/v1/models"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            outcome = ask(self._door(), self._path)
            self.samples.append(Sample(start, time.monotonic(), outcome))
            self._stop.wait(max(INTERVAL_S - (time.monotonic() - start), 0))


def ask(door: Address | None, path: str) -> str:
    """What a client of this path sees."""
    if door is None:
        return REFUSED
    connection = http.client.HTTPConnection(door.host, door.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except ConnectionRefusedError:
        return REFUSED
    except TimeoutError:
        return "no answer in time"
    except (OSError, http.client.HTTPException):
        return "connection closed"
    finally:
        connection.close()
    return ANSWER if status < 500 else str(status)
