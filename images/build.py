"""Builds images: images/build.sh [TARGET...]; a target is an image of images/docker-bake.hcl or a group of them.

    images/build.sh                      # the CPU images
    images/build.sh vllm-cuda            # one image
    images/build.sh cai                  # all Cloudera AI runtimes

This machine's pip settings, extra wheels and CA bundle are used for the build and stay out of the image. CUDA images are built one
after another. Standard library only: it runs before there is an environment.

Exit codes: 64 no such target, 66 the CA bundle cannot be read, 69 a registry, an index or an archive does not answer,
70 a step failed, 74 the disk is full or nearly so, 78 the pins do not go together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images import build_errors
from images.generate import ROOT, names
from images.resolve import pip_settings

LOG = ROOT / "build" / "image.log"
SOURCES = ("images", "ray_serve_cai", "pyproject.toml")
NEEDED_GB = {"cpu": 8, "cuda": 32}
"""Free space that the first build of an image takes at its peak, wheels and intermediate layers counted."""
PHASES = {
    "os-cpu": "operating system",
    "os-cuda": "compilers",
    "tools": "build tools",
    "torch": "torch",
    "engine-wheels": "engine",
    "ray": "Ray",
    "jupyter": "notebook gateway",
    "variant-cai": "Cloudera AI runtime",
    "package": "package",
    "bill": "bill of materials",
    "assembled": "imports and manifest",
}
STEP = re.compile(r"^#(\d+) \[(?:(\S+) )?(\S+)(?: +\d+/\d+)?\] (?:RUN|COPY|FROM)")
OUTPUT = re.compile(r"^#(\d+) \d+\.\d+ ")
DONE = re.compile(r"^#(\d+) DONE (\d+)\.\d+s")
EXPORT = re.compile(r"^#(\d+) \[(\S+)\] exporting to image|^#(\d+) exporting to image")


class BuildError(RuntimeError):
    """The build cannot be done; the text is for a person."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Surroundings:
    """What this machine brings to a build: files of its own, and wheels."""

    ca: Path | None
    index: str | None
    wheels: Path | None


def expand(wanted: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The images that targets and groups stand for, each once.

    Raises:
        BuildError: there is no such target.
    """
    found: list[str] = []
    for name in wanted or ["default"]:
        if name not in groups and name not in groups["all"]:
            raise BuildError(f"there is no image {name!r}; use {', '.join(groups['all'])}, or a group: {', '.join(groups)}.", 64)
        found += [image for image in groups.get(name, [name]) if image not in found]
    return found


def batches(images: Sequence[str]) -> list[list[str]]:
    """What is built together: all CPU images, then each CUDA image with its Cloudera AI runtime, for the disk's sake."""
    made: dict[str, list[str]] = {}
    for image in images:
        made.setdefault(image.removesuffix("-cai") if "-cuda" in image else "cpu", []).append(image)
    return list(made.values())


def settings(images: Iterable[str], around: Surroundings, scratch: Path) -> list[str]:
    """The options that give bake what this machine has; ``scratch`` holds pip.conf and uv.toml where there is an index."""
    options = []
    if around.ca:
        options.append(f"*.secrets=id=ca,src={around.ca}")
    if around.index:
        options += [f"*.secrets=id=pip,src={scratch / 'pip.conf'}", f"*.secrets=id=uv,src={scratch / 'uv.toml'}"]
    if around.wheels:
        # What this directory holds is not asked for elsewhere: PyTorch's index may be out of reach here. CUDA images
        # go without: such a directory usually holds CPU builds of torch, which any pin of a plain version prefers.
        for image in images:
            if "-cuda" not in image:
                options += [f"{image}.contexts.wheels={around.wheels}", f"{image}.args.EXTRA_INDEX_URL="]
    return [word for option in options for word in ("--set", option)]


def progress(lines: Iterable[str]) -> Iterator[str]:
    """What BuildKit's plain progress says, a line for each phase that starts work or that took a second or more."""
    steps: dict[str, str] = {}
    said: set[str] = set()
    for line in lines:
        if step := STEP.match(line):
            if step[3] in PHASES:
                steps[step[1]] = f"{PHASES[step[3]]} ({step[2]})" if step[2] else PHASES[step[3]]
        elif export := EXPORT.match(line):
            steps[export[1] or export[3]] = "writing the image"
        elif (output := OUTPUT.match(line)) and output[1] in steps and steps[output[1]] not in said:
            said.add(steps[output[1]])
            yield f"{steps[output[1]]} ..."
        elif (done := DONE.match(line)) and done[1] in steps and int(done[2]) >= 1:
            yield f"{steps[done[1]]}: {done[2]} s"


def surroundings(environment: Mapping[str, str]) -> Surroundings:
    """Read this machine's CA bundle and pip settings.

    Raises:
        BuildError: a CA bundle is named and is none.
    """
    ca, fix = None, "name a CA bundle, or unset it."
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        if given := environment.get(name):
            ca = Path(given)
            try:
                good = "-----BEGIN" in ca.read_text(errors="replace")
            except OSError as error:
                raise BuildError(f"{name} is {given!r}, which cannot be read ({error.strerror}); {fix}", 66) from error
            if not good:
                raise BuildError(f"{name} is {given!r}, which holds no certificate in PEM form; {fix}", 66)
            break
    pip = pip_settings()
    wheels = Path(pip["UV_FIND_LINKS"]) if "UV_FIND_LINKS" in pip else None
    return Surroundings(ca, pip.get("UV_DEFAULT_INDEX"), wheels if wheels and wheels.is_dir() else None)


def check_disk(images: Iterable[str], present: Iterable[str], free_bytes: int) -> None:
    """Refuse to start what would fill the disk.

    Raises:
        BuildError: there is less room than the first build of an image takes.
    """
    new = set(images) - set(present)
    needed = max((NEEDED_GB["cuda" if "-cuda" in image else "cpu"] for image in new), default=1)
    if free_bytes < needed * 1e9:
        what = ", ".join(sorted(new)) or "an image"
        raise BuildError(
            f"Docker's disk has {free_bytes / 1e9:.1f} GB free and building {what} takes up to {needed} GB; "
            "free some: docker system df; docker builder prune",
            build_errors.DISK,
        )


def say(text: str) -> None:
    print(f"image: {text}", file=sys.stderr, flush=True)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _git(*arguments: str) -> str:
    # The commit that last changed what is in the image: other commits leave the image as it is.
    done = subprocess.run(["git", "log", "-1", *arguments, "--", *SOURCES], check=False, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def _bake(images: Sequence[str], around: Surroundings) -> None:
    """Run one bake; an image gets its tag only when all of it is done.

    Raises:
        BuildError: it failed; the log's cause in a line.
    """
    environment = os.environ | {"REVISION": _git("--format=%H"), "SOURCE_DATE_EPOCH": _git("--format=%ct") or "0"}
    with tempfile.TemporaryDirectory() as scratch, LOG.open("a") as log:
        if around.index:
            Path(scratch, "pip.conf").write_text(f"[global]\nindex-url = {around.index}\n")
            Path(scratch, "uv.toml").write_text(f'[[index]]\nurl = "{around.index}"\ndefault = true\n')
        command = ["docker", "buildx", "bake", "--progress", "plain", "--file", "images/docker-bake.hcl"]
        command += [*settings(images, around, Path(scratch)), *images]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT, env=environment
        )
        assert process.stdout is not None
        kept: list[str] = []

        def read(stream: Iterable[str]) -> Iterator[str]:
            for line in stream:
                kept.append(line)
                log.write(line)
                yield line

        for phase in progress(read(process.stdout)):
            say(phase)
        if process.wait():
            told = build_errors.explain("".join(kept))
            raise BuildError(f"{', '.join(images)}: {told.line} (log: {LOG.relative_to(ROOT)})", told.exit_code)


def build(wanted: Sequence[str]) -> None:
    """Build images and say what they weigh.

    Raises:
        BuildError: something is missing, or a build failed.
    """
    images = expand(wanted, names(json.loads((ROOT / "images/versions.json").read_text())))
    around = surroundings(os.environ)
    prefix = os.environ.get("TAG_PREFIX", "ray-serve-cai:")
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    for batch in batches(images):
        root = Path(_docker("info", "--format", "{{.DockerRootDir}}") or "/nowhere")
        if root.is_dir():
            present = [image for image in batch if _docker("image", "inspect", "--format", "{{.Id}}", prefix + image)]
            check_disk(batch, present, shutil.disk_usage(root).free)
        say(f"building {' '.join(batch)} (layers that did not change are kept)")
        started = time.monotonic()
        _bake(batch, around)
        for image in batch:
            size = int(_docker("image", "inspect", "--format", "{{.Size}}", prefix + image) or 0)
            say(f"{prefix}{image}, {size / 1e6:.0f} MB, built in {time.monotonic() - started:.0f} s")


def main() -> int:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(prog="images/build.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help="an image or a group (default: the CPU images)")
    try:
        build(parser.parse_args().target)
    except BuildError as error:
        print(f"ray-serve-cai: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
