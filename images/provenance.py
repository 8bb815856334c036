"""Says where an image was built and from what, as SLSA's provenance: the predicate that is signed beside it.

    python3 -m images.provenance vllm-cpu --json build/release/vllm-cpu.provenance.json

Reads what GitHub Actions says of a run (GITHUB_SERVER_URL, _REPOSITORY, _REF, _SHA, _WORKFLOW_REF, _RUN_ID, _RUN_ATTEMPT); elsewhere the
builder is this machine's user, which nobody should believe. Standard library only. Format: slsa.dev/spec/v1.0/provenance.

Exit codes: 64 the command line cannot be used, 65 there is no such image, 73 the file cannot be written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from images import command
from images.errors import ContradictionError
from images.matrix import IMAGES, ROOT

BUILD_TYPE = "https://github.com/ray-serve-cai/ray-serve-cai/blob/main/docs/releasing.md"


def predicate(image: str, commit: str, locks: Mapping[str, str], env: Mapping[str, str]) -> dict[str, Any]:
    """The predicate for an image that was built from a commit.

    Args:
        locks: SHA-256 of each lock, by its path.
    """
    source = f"{env.get('GITHUB_SERVER_URL', 'https://github.com')}/{env.get('GITHUB_REPOSITORY', 'ray-serve-cai/ray-serve-cai')}"
    ref = env.get("GITHUB_REF", "")
    run = f"{source}/actions/runs/{env['GITHUB_RUN_ID']}/attempts/{env.get('GITHUB_RUN_ATTEMPT', '1')}" if env.get("GITHUB_RUN_ID") else ""
    workflow = env.get("GITHUB_WORKFLOW_REF")
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"repository": source, "ref": ref, "image": image},
            "resolvedDependencies": [
                {"uri": f"git+{source}" + (f"@{ref}" if ref else ""), "digest": {"gitCommit": commit}},
                *({"uri": f"file:{path}", "digest": {"sha256": digest}} for path, digest in sorted(locks.items())),
            ],
        },
        "runDetails": {
            "builder": {"id": f"https://github.com/{workflow}" if workflow else f"{source}#local"},
            "metadata": {"invocationId": run} if run else {},
        },
    }


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python3 -m images.provenance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="NAME", help="an image of the matrix, for example vllm-cpu or vllm-cpu-cai")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write it")
    given = parser.parse_args(arguments)
    directory = IMAGES / "locks" / given.image.removesuffix("-cai")
    if not directory.is_dir():
        raise ContradictionError(f"there is no image {given.image!r}; use one of images/docker-bake.hcl.")
    files = [*directory.glob("*.txt"), IMAGES / "locks/tools.txt"]
    locks = {str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    command.write(given.json, json.dumps(predicate(given.image, commit, locks, os.environ), indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(command.main(run, None))
