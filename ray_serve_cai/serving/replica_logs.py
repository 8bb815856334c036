"""What the replicas of an application and their engines wrote, read through Ray's dashboard from whichever node they are on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ray_serve_cai.engines import report
from ray_serve_cai.errors import UnavailableError

_TIME = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?")
"""The part that the time stamps of Serve, vLLM and SGLang have in common: month, day, time."""
_CONSEQUENCE = re.compile(r"closed by peer|reset by peer|root cause|died|is gone", re.IGNORECASE)
"""Of the death of another process, which has said why somewhere else."""
_MARKS = (":job_id:", ":actor_name:", ":task_name:")
"""Lines with which Ray begins a worker's log."""


def read(application: str, tail: int) -> list[str]:
    """At most ``tail`` lines, the newest, in the order of their times; of dead replicas where none is alive.

    Raises:
        UnavailableError: Ray's dashboard does not answer.
    """
    import ray
    from ray.util.state import list_actors
    from ray.util.state.exception import RayStateApiException

    address = ray.get_runtime_context().gcs_address  # others' clusters may be visible from here

    name = f"ServeReplica:{application}:"
    try:
        found = [actor for actor in list_actors(address, limit=10_000, detail=True) if actor.class_name.startswith(name)]
        alive = [actor for actor in found if actor.state == "ALIVE"]
        streams = [_log(address, actor.actor_id, suffix, tail) for actor in alive or found for suffix in ("out", "err")]
    except (RayStateApiException, OSError) as error:
        raise UnavailableError(f"logs cannot be read, since Ray's dashboard does not answer: {error}") from error
    return merged(streams)[-tail:] if tail > 0 else []


def last_error(application: str) -> str:
    """The last line of the last traceback that a replica or its engine wrote; empty where there is none, or it cannot be read.

    For a replica whose process was ended before it could say why.
    """
    try:
        lines = read(application, 1000)
    except UnavailableError:
        return ""
    errors = [line.rpartition(" -- ")[2].strip() for line in lines if report.raised(line)]
    causes = [error for error in errors if not _CONSEQUENCE.search(error)]
    return (causes or errors or [""])[-1]


def _log(address: str, actor_id: str, suffix: str, tail: int) -> list[str]:
    from ray.util.state import get_log

    text = "".join(get_log(address, actor_id=actor_id, suffix=suffix, tail=tail, errors="replace", filter_ansi_code=True))
    return [line for line in text.splitlines() if line.strip() and not line.startswith(_MARKS)]


def merged(streams: Iterable[list[str]]) -> list[str]:
    """Lines of several logs in the order of their times; a line without a time stays behind the one before it. Pure."""
    timed: list[tuple[str, str]] = []
    for lines in streams:
        when = ""
        for line in lines:
            found = _TIME.search(line)
            when = found[0].replace(",", ".") if found else when
            timed.append((when, line))
    return [line for _, line in sorted(timed, key=lambda item: item[0])]
