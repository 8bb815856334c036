"""What the commands of this directory have in common: faults of the command line, files they write, errors as one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from images.build_errors import BuildError
from images.errors import ImageError, OutputError, UsageError


class Parser(argparse.ArgumentParser):
    """Faults of the command line are errors like others."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see --help.")


def write(file: Path, text: str) -> None:
    """Write a page.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{file} cannot be written ({error.strerror}); name a file in a directory that is there.") from error


def main(run: Callable[[Sequence[str]], None], arguments: Sequence[str] | None) -> int:
    """Run a command; its exit code."""
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except (ImageError, BuildError) as error:
        print(f"ray-serve-cai: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
