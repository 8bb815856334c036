"""Write what follows from images/versions.json: docker-bake.hcl, and with --locks the dependency locks.

Standard library only; --check writes nothing and fails where a file is not what it should be.

    python3 -m images.generate --check
    python3 -m images.generate --locks        # needs uv on PATH and a package index
"""

from __future__ import annotations

import argparse
import json
import re
import sys

from images.build_errors import explain
from images.matrix import IMAGES, ROOT, bake
from images.resolve import LockError, locks, tools_lock

BAKE = IMAGES / "docker-bake.hcl"


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    parser.add_argument("--locks", action="store_true", help="resolve the locks anew as well")
    arguments = parser.parse_args()
    versions = json.loads((IMAGES / "versions.json").read_text())
    package = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    wanted = {BAKE: bake(versions, package[1] if package else "0")}
    if arguments.locks:
        name = "build tools"
        try:
            wanted[IMAGES / "locks/tools.txt"] = tools_lock(versions)
            for name, image in versions["images"].items():
                print(f"locks: resolving {name}", file=sys.stderr)
                wanted |= {IMAGES / "locks" / name / f"{layer}.txt": text for layer, text in locks(image, versions).items()}
        except LockError as error:
            told = explain(error.log)
            print(f"ray-serve-cai: error: {name}: {told.line}", file=sys.stderr)
            return told.exit_code
    stale = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    for path in stale:
        if arguments.check:
            print(f"{path.relative_to(ROOT)} is stale; run: make generate", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
