"""A site's own programs, run on every node before anything else is started."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from ray_serve_cai.errors import HookError, UsageError
from ray_serve_cai.node.environment import Environment, text
from ray_serve_cai.node.process import Child

logger = logging.getLogger(__name__)

VARIABLE = "RSCAI_HOOKS_DIR"
DIRECTORY = Path("/opt/ray-serve-cai/hooks.d")


def found(env: Environment, default: Path = DIRECTORY) -> list[Path]:
    """The programs of the hooks' directory, by name; hidden files and editors' copies are none.

    Raises:
        UsageError: a directory is named, and there is none.
    """
    named = text(env, VARIABLE)
    directory = Path(named) if named else default
    if not directory.is_dir():
        if named:
            raise UsageError(f"{VARIABLE} is {named!r}, which is no directory; mount it, or unset the variable.")
        return []
    hooks = []
    for file in sorted(directory.iterdir()):
        if not file.is_file() or file.name.startswith(".") or file.name.endswith("~"):
            continue
        if os.access(file, os.X_OK):
            hooks.append(file)
        else:
            logger.warning("hook %s is not executable and is left out; chmod a+x it", file)
    return hooks


async def run(hook: Path, child: Child, env: Mapping[str, str]) -> None:
    """Run one to its end; what it prints is passed on.

    Raises:
        HookError: it cannot be started, or does not end with 0.
    """
    try:
        await child.start([str(hook)], env)
    except OSError as error:
        raise HookError(f"hook {hook} cannot be started: {error.strerror}; give it a first line such as #!/bin/sh.") from error
    code = await child.wait()
    if code:
        raise HookError(f"hook {hook} ended with exit code {code}; mend what it found, or take it out of the directory.")
