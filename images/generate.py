"""Write what follows from images/versions.json: docker-bake.hcl, and with --locks the dependency locks.

Standard library only; --check writes nothing and fails where a file is not what it should be.

    python3 -m images.generate --check
    python3 -m images.generate --locks        # needs uv on PATH and a package index

Exit codes: 64 the command line cannot be used, 65 a file is stale, 69 there is no uv, or an index does not answer, 73 a file cannot be
written, 78 the pins do not go together.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from images import command
from images.build_errors import BuildError, explain
from images.errors import ContradictionError
from images.matrix import IMAGES, ROOT, bake
from images.resolve import LockError, locks, tools_lock

BAKE = IMAGES / "docker-bake.hcl"


def resolved(versions: Mapping[str, Any]) -> dict[Path, str]:
    """The locks, made anew, by file.

    Raises:
        BuildError: the pins do not resolve, an index cannot be reached, or there is no uv.
    """
    name = "build tools"
    try:
        made = {IMAGES / "locks/tools.txt": tools_lock(versions)}
        for name, image in versions["images"].items():
            print(f"locks: resolving {name}", file=sys.stderr)
            made |= {IMAGES / "locks" / name / f"{layer}.txt": text for layer, text in locks(image, versions).items()}
    except LockError as error:
        told = explain(error.log)
        raise BuildError(f"{name}: {told.line}", told.exit_code) from error
    return made


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        BuildError: the locks cannot be made.
        ImageError: a file is stale, or cannot be written.
    """
    parser = command.Parser(prog="python3 -m images.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is stale")
    parser.add_argument("--locks", action="store_true", help="resolve the locks anew as well")
    given = parser.parse_args(arguments)
    versions = json.loads((IMAGES / "versions.json").read_text())
    package = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    wanted = {BAKE: bake(versions, package[1] if package else "0")}
    if given.locks:
        wanted |= resolved(versions)
    stale = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    if stale and given.check:
        raise ContradictionError(f"{', '.join(str(path.relative_to(ROOT)) for path in stale)} is stale; run: make generate")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        command.write(path, wanted[path])
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(command.main(run, None))
