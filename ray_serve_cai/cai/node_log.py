"""What a node writes, kept in the project's files too: the platform's API gives no logs, and an application's own end with it."""

from __future__ import annotations

import logging.handlers
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from ray_serve_cai import logs
from ray_serve_cai.cai.config import CaiConfig
from ray_serve_cai.node.environment import text

MOST_BYTES = 4 << 20
"""Of one file; one former is kept beside it."""
FORMER = ".1"


def directory(cai: CaiConfig) -> Path:
    """Where a cluster's nodes write, as a session of the project sees it."""
    return _directory(cai.mounted, cai.name)


def _directory(cluster_dir: Path, cluster: str) -> Path:
    return cluster_dir / f"{cluster}.logs"


def keep(cluster_dir: Path, cluster: str, env: Mapping[str, str]) -> None:
    """Write all that this process says into its node's file, too; where that cannot be opened, say so and go on."""
    name = text(env, "RSCAI_CLUSTER_NODE") or text(env, "CDSW_ENGINE_ID") or "node"
    file = _directory(cluster_dir, cluster) / f"{name}.log"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _Copy(file, maxBytes=MOST_BYTES, backupCount=1)
    except OSError as error:
        logging.warning("%s cannot be written: %s; only the platform's own log has what this node says", file, error.strerror)
        return
    logs.copy_to(handler)


class _Copy(logging.handlers.RotatingFileHandler):
    """A file that ends nothing: where it cannot be written, its lines are lost and that is all."""

    def handleError(self, record: logging.LogRecord) -> None:
        """A full file system, mostly; the same line went to standard error."""


def names(where: Path) -> list[str]:
    """The nodes that have written something there."""
    return sorted(file.stem for file in where.glob("*.log"))


def tail(where: Path, name: str, count: int) -> list[str]:
    """The last lines of a node; none where it has written nothing."""
    lines: deque[str] = deque(maxlen=max(count, 0))
    for file in (where / f"{name}.log{FORMER}", where / f"{name}.log"):
        if file.is_file():
            lines.extend(file.read_text(errors="replace").splitlines())
    return list(lines)
