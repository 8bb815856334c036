"""Docker's format of environment files: NAME=value lines, values literal; NAME alone takes its value from an environment."""

from __future__ import annotations

import sys
from pathlib import Path

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node.environment import Environment


def read(path: Path, inherited: Environment) -> Environment:
    """The variables of a file; ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, or a line is none of the format.
    """
    try:
        lines = (sys.stdin.read() if str(path) == "-" else path.read_text()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"--env-file {path} cannot be read: {reason}; give a file that is here, or - for standard input.") from error
    env: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name.strip() or " " in name.strip():
            raise UsageError(f"--env-file {path}, line {number}: {line!r} is no NAME=value.")
        if equals:
            env[name.strip()] = value
        elif name.strip() in inherited:
            env[name.strip()] = inherited[name.strip()]
    return env
