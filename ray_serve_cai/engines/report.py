"""What a starting replica tells the head: its phase, and why it failed. Kept in the cluster's own key-value store.

Ray's ``experimental.internal_kv`` is the only store that every Ray process can reach without another actor.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from ray_serve_cai.errors import ERRORS_BY_NAME, EngineError, RayServeCaiError

_NAMESPACE = b"ray-serve-cai"
_RAISED = re.compile(r"\w(?:Error|Exception)(?:: \S|$)")


@dataclass(frozen=True)
class StartReport:
    """The last thing a replica of a model said while it started."""

    phase: str = ""
    error: str = ""
    error_type: str = ""

    def as_error(self) -> RayServeCaiError | None:
        """The error, as it was raised in the replica."""
        return ERRORS_BY_NAME.get(self.error_type, EngineError)(self.error) if self.error else None


def write(model: str, report: StartReport) -> None:
    """Replace the report of a model; needs a Ray connection."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(model.encode(), json.dumps(asdict(report)).encode(), namespace=_NAMESPACE)


def read(model: str) -> StartReport:
    """The report of a model; empty where no replica has started yet."""
    from ray.experimental.internal_kv import _internal_kv_get

    raw = _internal_kv_get(model.encode(), namespace=_NAMESPACE)
    return StartReport(**json.loads(raw)) if raw else StartReport()


def last_line(text: str) -> str:
    """The last line of a message that Serve made from a traceback: the one that says what went wrong."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it did not say why")


def raised(line: str) -> bool:
    """Whether a line of a log is the last of a traceback: the exception and what it says, if anything."""
    return bool(_RAISED.search(line))
