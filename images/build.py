"""Builds images: images/build.sh [TARGET...]; a target is an image of images/docker-bake.hcl or a group of them.

    images/build.sh                      # the CPU images
    images/build.sh vllm-cuda            # one image
    images/build.sh cai                  # all Cloudera AI runtimes
    images/build.sh --list all           # their names

This machine's pip settings, extra wheels, CA bundle, proxies and DEBIAN_MIRROR are used for the build and stay out of the image. With
WHEELHOUSE=build/wheelhouse (make wheelhouse) nothing is asked of any network. CUDA images are built one after another. What BuildKit
prints stays in build/image.log. Standard library only: it runs before there is an environment.

Exit codes: 64 no such target, 66 the CA bundle or the wheelhouse cannot be read, 69 Docker, a registry, an index or an archive does
not answer, 70 a step failed, 74 the disk is full or nearly so, 78 the pins do not go together, a file is not the pinned one, or
pip cannot read its settings, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from images import buildkit, command, plan, wheelhouse
from images.build_errors import BuildError
from images.buildkit import said, say
from images.matrix import ROOT, names
from images.resolve import pip_settings
from images.surroundings import for_cuda, surroundings

PREFIX = "ray-serve-cai:"


def build(wanted: Sequence[str]) -> None:
    """Build images and say what they weigh.

    Raises:
        BuildError: something is missing, or a build failed.
    """
    images = plan.expand(wanted, groups())
    around = surroundings(os.environ, pip_settings())
    prefix = os.environ.get("TAG_PREFIX", PREFIX)
    buildkit.need_docker()
    if around.wheelhouse:
        for image in images:
            wheelhouse.check(around.wheelhouse, image, wheelhouse.digests(image))
        base = wheelhouse.base_image()
        wheelhouse.check_base(around.wheelhouse, base, wheelhouse.layers(base))
    buildkit.begin(around)
    for batch in plan.batches(images):
        if root := _local_root():
            # Under any of its names an image that is here means that most of its layers are.
            present = [image for image in batch if any(_id(name + image) for name in {prefix, PREFIX})]
            plan.check_disk(batch, present, shutil.disk_usage(root).free, root)
        say(f"building {' '.join(batch)} (layers that did not change are kept)")
        started = time.monotonic()
        buildkit.bake(batch, around if around.wheelhouse or not plan.is_cuda(batch[0]) else for_cuda(around))
        for image in batch:
            size = int(said("docker", "image", "inspect", "--format", "{{.Size}}", prefix + image) or 0)
            if not size:
                raise BuildError(f"{prefix}{image} was built and is not in Docker; use its own builder: docker buildx use default.", 70)
            say(f"{prefix}{image}, {size / 1e6:.0f} MB, built in {time.monotonic() - started:.0f} s")


def groups() -> dict[str, list[str]]:
    """The groups of images that versions.json makes."""
    return names(json.loads((ROOT / "images/versions.json").read_text()))


def _id(image: str) -> str:
    return said("docker", "image", "inspect", "--format", "{{.Id}}", image)


def _local_root() -> Path | None:
    """Docker's directory, where its daemon runs on this machine and says so."""
    if not said("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").startswith("unix://"):
        return None
    root = Path(said("docker", "info", "--format", "{{.DockerRootDir}}") or "/nowhere")
    return root if root.is_dir() else None


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        BuildError: something is missing, or a build failed.
    """
    parser = command.Parser(prog="images/build.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help="an image or a group (default: the CPU images)")
    parser.add_argument("--list", action="store_true", help="print the names of the images, and build nothing")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(plan.expand(given.target, groups())))
    else:
        build(given.target)


def main() -> int:
    """The command; its exit code."""
    try:
        return command.main(run, None)
    except KeyboardInterrupt:
        print("ray-serve-cai: error: interrupted; images that were not done keep the tags they had.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
