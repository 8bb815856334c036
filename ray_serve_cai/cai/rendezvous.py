"""Where a head says how it is reached: a file in the project's file system, which every application of the project has.

Pod addresses change at every restart and the API does not tell them, so workers read the file anew each time they start or lose their head.
It holds no secret.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ray_serve_cai import private_file
from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import address

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a head says of itself.

    Attributes:
        address: of Ray's GCS, ``host:port``.
        session: another one at every start of the head's launcher.
        versions: its manifest, for people; joining compares them.
    """

    address: str
    session: str
    versions: Mapping[str, str]


def place(directory: Path, cluster: str) -> Path:
    """The file of a cluster."""
    return directory / f"{cluster}.address.json"


def write(file: Path, record: Record) -> None:
    """Replace the file in one step; a reader sees the former record or this one.

    Raises:
        OSError: the project's file system takes no file: it is full, or not there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    private_file.write(file, json.dumps(asdict(record), indent=2) + "\n")


def read(file: Path) -> Record | None:
    """The record, or None while there is none that can be used."""
    try:
        told = json.loads(file.read_text())
        record = Record(str(told["address"]), str(told["session"]), {str(name): str(value) for name, value in told["versions"].items()})
        address.parse(str(file), record.address)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
        logger.warning("%s cannot be used (%s); waiting for the head to write it anew", file, error or type(error).__name__)
        return None
    return record


def withdraw(file: Path, session: str) -> None:
    """Remove the file when its head leaves, unless another head has written its own meanwhile."""
    record = read(file)
    if record is not None and record.session == session:
        file.unlink(missing_ok=True)
