"""Pushes an image to a registry under the tag of its commit, and writes what it became there.

    python -m images.push ray-serve-cai:vllm-cpu --to ghcr.io/owner/ray-serve-cai --json build/release/vllm-cpu.pushed.json

The other tags, those that people use, are in the file, and images.pushed gives them once the image is signed. All are those of
images.tagger: derived from what is in the image. The exact one, such as 0.1.0-vllm0.32.0-cpu, never moves to other contents; an image
that would take it is refused here already, before anything is pushed, unless --replace. So is one that was not built from a commit. Log in
first: docker login.

Exit codes: 64 the command line cannot be used, 65 the image says of itself what is not so, has no commit, or its tag is taken, 66 there is
no such image, 69 Docker or the registry does not answer, 70 the image cannot be looked into, 73 the file cannot be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from images import command
from images.daemon import Daemon, connect
from images.errors import ContradictionError
from images.known import Known, learn
from images.pushed import Pushed
from images.tags import REVISION

_FIX = "raise the version, or let the tag move: images.push --replace."


def push(daemon: Daemon, known: Known, repository: str, *, replace: bool) -> Pushed:
    """Push an image under the tag of its commit.

    Raises:
        ContradictionError: it has no such tag, or its exact tag is there with other contents.
        DaemonError: the registry refuses, or does not answer.
    """
    if known.notes:
        raise ContradictionError(f"{known.name} is not pushed: {'; '.join(known.notes)}.")
    exact = known.tags[0]
    (tag,) = (tag for tag in known.tags if tag.startswith("sha-"))
    there = None if replace else daemon.pushed(f"{repository}:{exact}")
    if there and known.image.id not in (there, daemon.id_of(f"{repository}@{there}")):
        raise ContradictionError(
            f"{repository}:{exact} is in the registry as {there}, which is another image than {known.name}; nothing was pushed: {_FIX}"
        )
    daemon.tag(known.image.id, repository, [tag])
    print(f"push: {repository}:{tag}", file=sys.stderr, flush=True)
    digest = daemon.push(repository, tag)
    if there and there != digest:
        raise ContradictionError(
            f"{repository}:{exact} is in the registry as {there}, and the same image, packed otherwise, is {digest} now; {_FIX}"
        )
    return Pushed(known.facts.image, repository, digest, known.tags, known.image.id, known.image.labels[REVISION])


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python -m images.push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="IMAGE", help="an image that Docker has, for example ray-serve-cai:vllm-cpu")
    parser.add_argument("--to", required=True, metavar="REPOSITORY", help="for example ghcr.io/owner/ray-serve-cai")
    parser.add_argument("--replace", action="store_true", help="let the exact tag move to this image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write repository, digest and tags there (default: print them)")
    given = parser.parse_args(arguments)
    with connect() as daemon:
        done = push(daemon, learn(daemon, given.image), given.to, replace=given.replace)
    if given.json:
        command.write(given.json, done.as_json())
    else:
        print(done.as_json(), end="")


if __name__ == "__main__":
    sys.exit(command.main(run, None))
