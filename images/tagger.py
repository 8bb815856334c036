"""Derives an image's tags from what is really in it, so that a tag cannot lie.

    python -m images.tagger ray-serve-cai:vllm-cpu                  # print the tags
    python -m images.tagger ray-serve-cai:vllm-cpu --apply          # and give them to the image
    python -m images.tagger ray-serve-cai:vllm-cpu --page page.md   # write what is in it

Runs one short container without a network, and looks at the distributions that are installed. Labels or a manifest that say
something else are an error that names both, and nothing is tagged.

Exit codes: 64 the command line cannot be used, 65 the image says of itself what is not so, 66 there is no such image,
69 Docker does not answer, 70 the image cannot be looked into, 73 the page cannot be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from images import archive, command, measured
from images.contents import contents
from images.daemon import connect
from images.known import learn
from images.page import page


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python -m images.tagger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="IMAGE", help="an image that Docker has, for example ray-serve-cai:vllm-cpu")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="give the image its tags, in the repository it is in")
    what.add_argument("--json", action="store_true", help="print all that was found as one JSON object")
    what.add_argument("--page", type=Path, metavar="FILE", help="write a page in Markdown: versions, layers, packages")
    given = parser.parse_args(arguments)
    with connect() as daemon:
        known = learn(daemon, given.image)
        for note in known.notes:
            print(f"ray-serve-cai: note: {note}", file=sys.stderr)
        if given.apply:
            daemon.tag(known.image.id, known.repository, known.tags)
    if given.page:
        with archive.saving(given.image) as stream:
            saved = archive.read(stream, contents)
        command.write(given.page, page(known, measured.layers(saved)))
    else:
        print(known.as_json() if given.json else "\n".join(f"{known.repository}:{tag}" for tag in known.tags))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    return command.main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
