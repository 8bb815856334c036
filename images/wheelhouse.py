"""Collects what a build takes from the network, for builds without one: python3 -m images.wheelhouse [TARGET...]

    make wheelhouse TARGETS="vllm-cpu vllm-cuda"     # into build/wheelhouse
    WHEELHOUSE=build/wheelhouse make image TARGETS="vllm-cpu vllm-cuda"

The second command is for the machine without a network, after this clone and the directory were carried there. The directory holds the
base image, Debian packages, the build tools and each image's wheels. Standard library only, as images/build.py.

Exit codes: those of images/build.sh, and 73 the directory cannot be written.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from images import buildkit, command, plan
from images.build_errors import BUILD, BuildError
from images.buildkit import say
from images.errors import OutputError
from images.matrix import IMAGES, ROOT, names
from images.resolve import pip_settings
from images.surroundings import Surroundings, for_cuda, surroundings

BASE = "BASE"
"""The file that says what belongs together: the base image's name, its layers as Docker prints them, and `packages`."""


def digests(image: str) -> dict[str, str]:
    """What COMPLETE holds in the directories that an image is built from: SHA-256 of the locks, one after another."""
    name = image.removesuffix("-cai")
    locks = {f"wheels/{name}": sorted((IMAGES / "locks" / name).glob("*.txt")), "tool-wheels": [IMAGES / "locks/tools.txt"]}
    return {place: hashlib.sha256(b"".join(lock.read_bytes() for lock in found)).hexdigest() for place, found in locks.items()}


def check(place: Path, image: str, wanted: Mapping[str, str]) -> None:
    """Refuse a wheelhouse that does not hold what one image needs, before anything is built; ``wanted`` is of `digests`.

    Raises:
        BuildError: a directory is missing or was collected for other locks.
    """
    fix = f"collect it where there is a network: make wheelhouse TARGETS={image}"
    if not (place / "debs/Packages").is_file():
        raise BuildError(f"WHEELHOUSE is '{place}', which holds no Debian packages; {fix}", 66)
    for directory, digest in wanted.items():
        complete = place / directory / "COMPLETE"
        if not complete.is_file():
            raise BuildError(f"WHEELHOUSE is '{place}', which has no {directory}; {fix}", 66)
        if complete.read_text().strip() != digest:
            raise BuildError(f"WHEELHOUSE is '{place}', and its {directory} are for other versions than images/locks here; {fix}", 78)


def base_image() -> str:
    """The base image that builds take here."""
    return os.environ.get("BASE_IMAGE") or str(json.loads((IMAGES / "versions.json").read_text())["base_image"])


def layers(image: str) -> str:
    """The digests of an image's layers, which are the same wherever it is; empty where Docker does not have it."""
    return buildkit.said("docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", image)


def packages(place: Path) -> str:
    """SHA-256 of the index of a wheelhouse's Debian packages, which has that of each of them; apt compares those."""
    return hashlib.sha256((place / "debs/Packages").read_bytes()).hexdigest()


def check_base(place: Path, image: str, found: str) -> None:
    """Refuse to build on another base image than the one that a wheelhouse's Debian packages are for; ``found`` is of `layers`.

    Raises:
        BuildError: it is another, it is not here, the packages are others, or the wheelhouse does not say which they were.
    """
    base = place / BASE
    said = base.read_text().splitlines() if base.is_file() else []
    fix = "collect it anew, with a network: make wheelhouse"
    if len(said) != 3:
        raise BuildError(f"WHEELHOUSE is '{place}', which does not say which base image and Debian packages belong together; {fix}", 66)
    name, collected, index = said
    if index != packages(place):
        raise BuildError(f"WHEELHOUSE is '{place}', and its debs are not those that were collected for the base image {name}; {fix}", 78)
    if not found:
        raise BuildError(f"WHEELHOUSE is '{place}', and its base image {image} is not in Docker; load it: images/base.sh", 66)
    if found != collected:
        raise BuildError(
            f"WHEELHOUSE is '{place}', and its Debian packages are for the base image {name} of its base.tar, not for the {image} here; "
            f"take that one: docker load --input {place}/base.tar; export BASE_IMAGE={name}",
            78,
        )


def collect(wanted: Sequence[str], place: Path) -> None:
    """Fill ``place``; what is there and fits is kept.

    Raises:
        BuildError: something cannot be had.
    """
    versions = json.loads((IMAGES / "versions.json").read_text())
    images = list(dict.fromkeys(name.removesuffix("-cai") for name in plan.expand(wanted, names(versions))))
    around = replace(surroundings(os.environ, pip_settings()), wheelhouse=None)
    buildkit.need_docker()
    buildkit.begin(around)
    place.mkdir(parents=True, exist_ok=True)
    base = base_image()
    (place / BASE).unlink(missing_ok=True)
    _save(base, place / "base.tar")
    _fill(place, "debs", "collected-debs", around)
    (place / BASE).write_text(f"{base}\n{layers(base)}\n{packages(place)}\n")  # with it, base image and Debian packages are of one kind
    for image in images:
        for directory, digest in digests(image).items():
            complete = place / directory / "COMPLETE"
            if not complete.is_file() or complete.read_text().strip() != digest:
                _fill(place, directory, f"collected-{Path(directory).name}", for_cuda(around) if plan.is_cuda(image) else around)
    _link(place / "wheels")
    size = sum(file.stat().st_size / file.stat().st_nlink for file in place.rglob("*") if file.is_file())
    say(f"{place} is complete, {size / 1e6:.0f} MB; take it and this clone to where there is no network, and there:")
    say(f"  WHEELHOUSE={os.path.relpath(place)} make image TARGETS='{' '.join(images)}'")


def _save(base: str, file: Path) -> None:
    """The base image as `docker load` reads it."""
    say(f"saving {base}")
    half = file.with_suffix(".half")
    done = subprocess.run(["docker", "save", "--output", str(half), base], check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise BuildError(f"the base image {base} cannot be saved: {done.stderr.strip()}; run: images/base.sh", BUILD)
    half.rename(file)


def _fill(place: Path, directory: str, target: str, around: Surroundings) -> None:
    """Collect one directory; a half of it never stands in its place."""
    with tempfile.TemporaryDirectory(dir=place, prefix="half-") as half:
        Path(half).chmod(0o755)
        buildkit.bake([target], around, COLLECTED=half)
        shutil.rmtree(place / directory, ignore_errors=True)
        (place / directory).parent.mkdir(exist_ok=True)
        shutil.copytree(half, place / directory, copy_function=os.link)


def _link(wheels: Path) -> None:
    """Keep one copy of a wheel that several images have."""
    first: dict[str, Path] = {}
    for file in sorted(wheels.rglob("*.whl")):
        other = first.setdefault(file.name, file)
        if not other.samefile(file) and filecmp.cmp(other, file, shallow=False):
            file.unlink()
            file.hardlink_to(other)


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        BuildError: something cannot be had.
        OutputError: the directory cannot be written.
    """
    parser = command.Parser(prog="images.wheelhouse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help="an image or a group (default: the CPU images)")
    parser.add_argument("--into", type=Path, default=ROOT / "build/wheelhouse", help="the directory (default: build/wheelhouse)")
    given = parser.parse_args(arguments)
    try:
        collect(given.target, given.into.resolve())
    except OSError as error:
        raise OutputError(f"{given.into} cannot be written ({error.strerror}); free some space, or use another: --into.") from error


def main() -> int:
    """The command; its exit code."""
    try:
        return command.main(run, None)
    except KeyboardInterrupt:
        print("ray-serve-cai: error: interrupted; what was complete is kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
