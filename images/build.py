"""Builds images: images/build.sh [TARGET...]; a target is an image of images/docker-bake.hcl or a group of them.

    images/build.sh                      # the CPU images
    images/build.sh vllm-cuda            # one image
    images/build.sh cai                  # all Cloudera AI runtimes

This machine's pip settings, extra wheels and CA bundle are used for the build and stay out of the image. CUDA images are built one
after another. What BuildKit prints stays in build/image.log. Standard library only: it runs before there is an environment.

Exit codes: 64 no such target, 66 the CA bundle cannot be read, 69 Docker, a registry, an index or an archive does not answer,
70 a step failed, 74 the disk is full or nearly so, 78 the pins do not go together or a file is not the pinned one, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from images import build_errors, plan
from images.generate import ROOT, names
from images.plan import BuildError, Surroundings
from images.progress import progress
from images.resolve import pip_settings

LOG = ROOT / "build" / "image.log"
PREFIX = "ray-serve-cai:"
SOURCES = ("images", "ray_serve_cai", "pyproject.toml")


def build(wanted: Sequence[str]) -> None:
    """Build images and say what they weigh.

    Raises:
        BuildError: something is missing, or a build failed.
    """
    images = plan.expand(wanted, names(json.loads((ROOT / "images/versions.json").read_text())))
    around = plan.surroundings(os.environ, pip_settings())
    prefix = os.environ.get("TAG_PREFIX", PREFIX)
    if not shutil.which("docker"):
        raise BuildError("there is no docker command here; install Docker, or run: compose/docker-engine.sh", build_errors.UNREACHABLE)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    for batch in plan.batches(images):
        if root := _local_root():
            # Under any of its names an image that is here means that most of its layers are.
            present = [image for image in batch if any(_id(name + image) for name in {prefix, PREFIX})]
            plan.check_disk(batch, present, shutil.disk_usage(root).free, root)
        _say(f"building {' '.join(batch)} (layers that did not change are kept)")
        started = time.monotonic()
        _bake(batch, around)
        for image in batch:
            size = int(_said("docker", "image", "inspect", "--format", "{{.Size}}", prefix + image) or 0)
            _say(f"{prefix}{image}, {size / 1e6:.0f} MB, built in {time.monotonic() - started:.0f} s")


def _bake(images: Sequence[str], around: Surroundings) -> None:
    """Run one bake; an image gets its tag only when all of it is done.

    Raises:
        BuildError: it failed; the log's cause in a line.
    """
    # The commit that last changed what is in the image: other commits leave the image as it is.
    commit, _, seconds = _said("git", "log", "-1", "--format=%H %ct", "--", *SOURCES).partition(" ")
    environment = os.environ | {"REVISION": commit, "SOURCE_DATE_EPOCH": seconds or "0"}
    kept: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, LOG.open("a") as log:
        for name, text in plan.files(around).items():
            Path(scratch, name).write_text(text)

        def read(stream: Iterable[str]) -> Iterator[str]:
            for line in stream:
                kept.append(line)
                log.write(line)
                log.flush()
                yield line

        command = ["docker", "buildx", "bake", "--progress", "plain", "--file", "images/docker-bake.hcl"]
        command += [*plan.settings(images, around, Path(scratch)), *images]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT, env=environment
        ) as process:
            assert process.stdout is not None
            for phase in progress(read(process.stdout), images[0]):
                _say(phase)
    if process.returncode:
        told = build_errors.explain("".join(kept))
        raise BuildError(f"{', '.join(images)}: {told.line} (log: {os.path.relpath(LOG, ROOT)})", told.exit_code)


def _id(image: str) -> str:
    return _said("docker", "image", "inspect", "--format", "{{.Id}}", image)


def _local_root() -> Path | None:
    """Docker's directory, where its daemon runs on this machine and says so."""
    if not _said("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").startswith("unix://"):
        return None
    root = Path(_said("docker", "info", "--format", "{{.DockerRootDir}}") or "/nowhere")
    return root if root.is_dir() else None


def _said(*command: str) -> str:
    """What a command prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _say(text: str) -> None:
    print(f"image: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(prog="images/build.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help="an image or a group (default: the CPU images)")
    wanted = parser.parse_args().target
    try:
        build(wanted)
    except BuildError as error:
        print(f"ray-serve-cai: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ray-serve-cai: error: interrupted; images that were not done keep the tags they had.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
