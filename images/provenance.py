"""Says where an image was built and from what, as SLSA's provenance: the predicate that is signed beside it.

    python3 -m images.provenance build/release/vllm-cpu.pushed.json --json build/release/vllm-cpu.provenance.json

Reads what images.push wrote. The commit is the image's own, by its label, and the locks are those of that commit, wherever this clone is.
Reads what GitHub Actions says of a run (GITHUB_SERVER_URL, _REPOSITORY, _REF, _SHA, _WORKFLOW_REF, _RUN_ID, _RUN_ATTEMPT); elsewhere the
builder is this machine's user, which nobody should believe. Standard library only. Format: slsa.dev/spec/v1.0/provenance.

Exit codes: 64 the command line cannot be used, 65 the file is not what images.push writes, or its commit has no such image, 66 there is no
such file, or this clone has no such commit, 69 git cannot be run, 73 the file cannot be written.
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

from images import command, pushed
from images.errors import ContradictionError, DaemonError, NoImageError
from images.matrix import ROOT

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


def locks_at(commit: str, image: str, checkout: Path = ROOT) -> dict[str, str]:
    """SHA-256 of each lock that an image is built from, by its path, as a commit has them.

    Raises:
        NoImageError: the clone has no such commit.
        ContradictionError: the commit has no such image.
        DaemonError: git cannot be run.
    """
    if _git(checkout, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise NoImageError(
            f"{image} was built from commit {commit}, which is not in {checkout}; fetch it: git fetch --unshallow, "
            f"or git fetch origin {commit}."
        )
    directory = f"images/locks/{image.removesuffix('-cai')}"
    listed = (_git(checkout, "ls-tree", "--name-only", commit, f"{directory}/") or b"").decode().split()
    found = {}
    for path in (*(path for path in listed if path.endswith(".txt")), "images/locks/tools.txt"):
        content = _git(checkout, "show", f"{commit}:{path}")
        if content is not None:
            found[path] = hashlib.sha256(content).hexdigest()
    if len(found) < 2:
        raise ContradictionError(f"commit {commit} has no locks in {directory}, so no image {image!r}; use one of images/docker-bake.hcl.")
    return found


def _git(checkout: Path, *words: str) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise DaemonError("there is no git on the PATH; install it.") from error
    return None if done.returncode else done.stdout


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python3 -m images.provenance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="for example build/release/vllm-cpu.pushed.json")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write it")
    given = parser.parse_args(arguments)
    image = pushed.read(given.file)
    made = predicate(image.image, image.revision, locks_at(image.revision, image.image), os.environ)
    command.write(given.json, json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(command.main(run, None))
