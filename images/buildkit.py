"""Runs docker buildx bake with what this machine brings; its words go to build/image.log, its phases and its failure to people."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from images import build_errors
from images.build_errors import BuildError
from images.matrix import ROOT
from images.plan import settings
from images.progress import progress
from images.surroundings import Surroundings, files, without_passwords

LOG = ROOT / "build" / "image.log"
SOURCES = ("images", "ray_serve_cai", "pyproject.toml", "README.md", "LICENSE")


def need_docker() -> None:
    """See that there is a Docker to ask.

    Raises:
        BuildError: there is none.
    """
    if not shutil.which("docker"):
        raise BuildError("there is no docker command here; install Docker, or run: compose/docker-engine.sh", build_errors.UNREACHABLE)


def begin(around: Surroundings) -> None:
    """Begin the log anew, and say what of this machine no step can use."""
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    for name in around.left_out:
        say(f"{name} is a proxy at localhost, which is another one in a step of a build; it is left out: name this machine's address")


def bake(targets: Sequence[str], around: Surroundings, **variables: str) -> None:
    """Run one bake of targets of images/docker-bake.hcl with ``variables`` of it; an image gets its tag only when all of it is done.

    Raises:
        BuildError: it failed; the log's cause in a line.
    """
    # The commit that last changed what is in the image: other commits leave the image as it is.
    commit, _, seconds = said("git", "log", "-1", "--format=%H %ct", "--", *SOURCES).partition(" ")
    given = {"REVISION": commit, "SOURCE_DATE_EPOCH": seconds or "0", "NETWORK": "none" if around.wheelhouse else "default"}
    kept: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, LOG.open("a") as log:
        for name, text in files(around).items():
            Path(scratch, name).write_text(text)

        def read(stream: Iterable[str]) -> Iterator[str]:
            for line in map(without_passwords, stream):
                kept.append(line)
                log.write(line)
                log.flush()
                yield line

        command = ["docker", "buildx", "bake", "--progress", "plain", "--file", "images/docker-bake.hcl"]
        command += [*settings(targets, around, Path(scratch)), *targets]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,  # a question that newer ones ask would be waited for unseen
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=ROOT,
            # wheels may lie outside of the clone
            env=os.environ | {"BUILDX_BAKE_ENTITLEMENTS_FS": "0"} | dict(around.proxies) | given | variables,
        ) as process:
            assert process.stdout is not None
            for phase in progress(read(process.stdout), targets[0]):
                say(phase)
    if process.returncode:
        told = build_errors.explain("".join(kept))
        raise BuildError(f"{', '.join(targets)}: {told.line} (log: {os.path.relpath(LOG, ROOT)})", told.exit_code)


def said(*command: str) -> str:
    """What a command prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def say(text: str) -> None:
    """A line for people."""
    print(f"image: {text}", file=sys.stderr, flush=True)
