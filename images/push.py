"""Pushes an image to a registry under its release tags, and writes what it became there.

    python -m images.push ray-serve-cai:vllm-cpu --to ghcr.io/owner/ray-serve-cai --json build/release/vllm-cpu.json

The tags are those of images.tagger: derived from what is in the image. The exact one, such as 0.1.0-vllm0.32.0-cpu, is never moved to
other contents; --replace does. Log in first: docker login.

Exit codes: 64 the command line cannot be used, 65 the image says of itself what is not so, or its tag is taken, 66 there is no such image,
69 Docker or the registry does not answer, 70 the image cannot be looked into, 73 the file cannot be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from images import command
from images.daemon import Daemon, connect
from images.errors import ContradictionError
from images.known import Known, learn


def push(daemon: Daemon, known: Known, repository: str, *, replace: bool) -> dict[str, object]:
    """Push all tags; the digest is one for all of them.

    Raises:
        ContradictionError: the exact tag is there with other contents.
        DaemonError: the registry refuses, or does not answer.
    """
    exact = known.tags[0]
    there = daemon.pushed(f"{repository}:{exact}")
    daemon.tag(known.image.id, repository, known.tags)
    if there and not replace and there not in daemon.digests(known.image.id, repository):
        raise ContradictionError(
            f"{repository}:{exact} is in the registry as {there}, another image; raise the version, or move the tag with --replace."
        )
    digests = set()
    for tag in known.tags:
        print(f"push: {repository}:{tag}", file=sys.stderr, flush=True)
        digests.add(daemon.push(repository, tag))
    (digest,) = digests
    return {"image": known.facts.image, "repository": repository, "digest": digest, "tags": known.tags, "id": known.image.id}


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python -m images.push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="IMAGE", help="an image that Docker has, for example ray-serve-cai:vllm-cpu")
    parser.add_argument("--to", required=True, metavar="REPOSITORY", help="for example ghcr.io/owner/ray-serve-cai")
    parser.add_argument("--replace", action="store_true", help="move an exact tag that is there to this image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write repository, digest and tags there (default: print them)")
    given = parser.parse_args(arguments)
    with connect() as daemon:
        done = push(daemon, learn(daemon, given.image), given.to, replace=given.replace)
    text = json.dumps(done, indent=2) + "\n"
    if given.json:
        command.write(given.json, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    sys.exit(command.main(run, None))
