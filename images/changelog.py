"""Prints a version's section of CHANGELOG.md, and sees that a release's tag, the package's version and the changelog agree.

    python3 -m images.changelog 0.1.0
    python3 -m images.changelog --tag v0.1.0      # also that pyproject.toml has this version

Standard library only. Exit codes: 64 the command line cannot be used, 65 they do not agree.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from images import command
from images.errors import ContradictionError
from images.matrix import ROOT


def section(changelog: str, version: str) -> str:
    """What stands under a version's heading, without the heading.

    Raises:
        ContradictionError: there is no such section, nothing in it, or it says that the version is still to be released.
    """
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not found:
        raise ContradictionError(f"CHANGELOG.md has no section [{version}]; give what is under [Unreleased] that heading.")
    if not found[1].strip():
        raise ContradictionError(f"CHANGELOG.md says nothing under [{version}]; write what users will notice.")
    if waiting := re.search(r"^To be released.*$", found[1], re.MULTILINE | re.IGNORECASE):
        raise ContradictionError(f"CHANGELOG.md says {waiting[0]!r} under [{version}]; take that line out, and tag the commit without it.")
    return found[1].strip() + "\n"


def version_of(tag: str, pyproject: str) -> str:
    """The version that a release's tag names, which is the package's.

    Raises:
        ContradictionError: it is no version, or another than the package's.
    """
    named = re.fullmatch(r"v(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)", tag)
    if not named:
        raise ContradictionError(f"the tag {tag!r} names no version; a release's tag is v and the version, for example v0.1.0.")
    packaged = re.search(r'^version = "(.+)"', pyproject, re.MULTILINE)
    if not packaged or packaged[1] != named[1]:
        have = packaged[1] if packaged else "none"
        raise ContradictionError(f"the tag is {tag} and pyproject.toml has version {have}; set it, make generate, and tag that.")
    return named[1]


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python3 -m images.changelog", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("version", nargs="?", help="for example 0.1.0")
    what.add_argument("--tag", help="a release's tag, for example v0.1.0")
    given = parser.parse_args(arguments)
    version = version_of(given.tag, (ROOT / "pyproject.toml").read_text()) if given.tag else given.version
    print(section((ROOT / "CHANGELOG.md").read_text(), version), end="")


if __name__ == "__main__":
    sys.exit(command.main(run, None))
