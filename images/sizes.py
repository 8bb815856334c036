"""Measures images: uncompressed, compressed, by layer and by package; writes docs/images-sizes.json and docs/images-sizes.md.

    python -m images.sizes                     # every image of the matrix that Docker has, where it is another than was measured
    python -m images.sizes --again vllm-cpu    # one, also where it is the same
    python -m images.sizes --from docs/images-sizes.json --page docs/images-sizes.md --check    # is the page what it must be?

Reads each image once, as `docker save` writes it, and holds none of it; gzip takes half a minute for each gigabyte. An image that is
not there keeps what was measured before.

Exit codes: 64 the command line cannot be used, 65 the page is not up to date, 66 there is no such image or file,
69 Docker does not answer, 70 an image cannot be read, 73 a file cannot be written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from images import archive, command, measured
from images.compressing import Compressing
from images.contents import contents
from images.daemon import Daemon, connect
from images.errors import ContradictionError, NoImageError, UsageError
from images.inside import parse
from images.matrix import IMAGES, ROOT, names
from images.measured import Image, Sizes
from images.sizes_page import page

FILE = ROOT / "docs" / "images-sizes.json"
PAGE = ROOT / "docs" / "images-sizes.md"


def measure(daemon: Daemon, name: str) -> Image:
    """Measure an image that Docker has.

    Raises:
        ImageError: it is not there, or cannot be read.
    """
    image = daemon.image(name)
    inside = parse(name, daemon.probe(name))
    with archive.saving(image.id) as stream, Compressing(stream) as compressing:
        saved = archive.read(compressing.as_stream(), contents)
        compressed = compressing.totals()
    return Image(
        measured=datetime.datetime.now(datetime.timezone.utc).date(),
        id=image.id,
        size=image.size,
        zstd=compressed["zstd"],
        gzip=compressed["gzip"],
        distributions=len(inside.distributions),
        layers=measured.layers(saved),
        packages=measured.packages(inside),
    )


def present(daemon: Daemon, wanted: Sequence[str], prefix: str) -> dict[str, str]:
    """The images that Docker has, with their ids; without a list of images, those of the matrix that are there."""
    found = {}
    for name in wanted or matrix():
        try:
            found[name] = daemon.image(prefix + name).id
        except NoImageError:
            if wanted:
                raise
            say(f"{prefix}{name} is not here and keeps what it has")
    return found


def matrix() -> list[str]:
    """All images of images/versions.json."""
    return names(json.loads((IMAGES / "versions.json").read_text()))["all"]


def measure_all(wanted: Sequence[str], file: Path, again: bool) -> Sizes:
    """Measure what is there, and keep each image's figures as soon as they are known.

    Raises:
        ImageError: an image is not there that was asked for, or cannot be read.
    """
    sizes = measured.read(file) if file.exists() else Sizes()
    prefix = os.environ.get("TAG_PREFIX", "ray-serve-cai:")
    with connect() as daemon:
        for name, found in present(daemon, wanted, prefix).items():
            known = sizes.images.get(name)
            if known and known.id == found and not again:
                say(f"{prefix}{name} is the image that was measured on {known.measured}")
                continue
            started = time.monotonic()
            image = measure(daemon, prefix + name)
            sizes = sizes.with_image(name, image)
            command.write(file, sizes.as_text())
            figures = f"{image.size / 1e6:,.0f} MB, zstd {image.zstd / 1e6:,.0f} MB, gzip {image.gzip / 1e6:,.0f} MB"
            say(f"{prefix}{name}: {figures} (measured in {time.monotonic() - started:.0f} s)")
    return sizes


def say(text: str) -> None:
    print(f"sizes: {text}", file=sys.stderr, flush=True)


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python -m images.sizes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="*", help="images of the matrix, for example vllm-cpu (default: all that Docker has)")
    parser.add_argument("--again", action="store_true", help="measure also an image that is the one measured before")
    parser.add_argument(
        "--json", type=Path, default=FILE, metavar="FILE", help="where the figures are kept (default: docs/images-sizes.json)"
    )
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="measure nothing; take the figures from here")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="the page (default: docs/images-sizes.md)")
    parser.add_argument("--check", action="store_true", help="with --from: write nothing, and fail where the page is another")
    given = parser.parse_args(arguments)
    if given.source and (given.image or given.again):
        raise UsageError("--from measures nothing, so it goes without images and without --again; see --help.")
    if given.check and not given.source:
        raise UsageError("--check goes with --from FILE; see --help.")
    if unknown := [name for name in given.image if name not in matrix()]:
        raise UsageError(f"there is no image {unknown[0]!r}; use {', '.join(matrix())}.")
    sizes = measured.read(given.source) if given.source else measure_all(given.image, given.json, given.again)
    text = page(sizes, matrix())
    if not given.check:
        command.write(given.page, text)
    elif not given.page.exists() or given.page.read_text(encoding="utf-8") != text:
        raise ContradictionError(f"{given.page} is not up to date; run: python -m images.sizes --from {given.source} --page {given.page}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    return command.main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
