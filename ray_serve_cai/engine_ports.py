"""Ports on which the ranks of one replica find each other: a range of their own on each node, leased one by one."""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ray_serve_cai.errors import ResourceError, UsageError

VARIABLE = "RSCAI_ENGINE_PORTS"
DEFAULT = (20000, 20999)
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")


def parse(env: Mapping[str, str]) -> tuple[int, int]:
    """First and last port of the range.

    Raises:
        UsageError: the variable is no range of ports.
    """
    value = env.get(VARIABLE, "").strip()
    if not value:
        return DEFAULT
    found = _RANGE.fullmatch(value)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise UsageError(f"{VARIABLE} is {value!r}; use a range of ports, for example {DEFAULT[0]}-{DEFAULT[1]}.")
    return first, last


class Lease:
    """One port that nobody else on this machine gets while this object lives. Its file is freed by the kernel with the process."""

    def __init__(self, port: int, file: IO[str]) -> None:
        self.port = port
        self._file = file

    def release(self) -> None:
        """Let others have it."""
        self._file.close()


def lease(env: Mapping[str, str], directory: Path | None = None) -> Lease:
    """A port of the range that nobody holds and nobody listens on.

    Args:
        directory: where the lock files are; by default one for all users of the container.

    Raises:
        UsageError: as `parse`.
        ResourceError: none is left.
    """
    first, last = parse(env)
    locks = directory or Path(tempfile.gettempdir()) / f"ray-serve-cai-ports-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for port in random.sample(range(first, last + 1), last - first + 1):
        file = (locks / str(port)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", port))
        except OSError:
            file.close()
            continue
        return Lease(port, file)
    raise ResourceError(f"no free port from {first} to {last} for the ranks of a replica; set {VARIABLE} to a larger range.")
