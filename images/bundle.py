"""Writes one archive with an image, its compose files, configs, documentation and checksums, for a machine without a network.

    python -m images.bundle ray-serve-cai:vllm-cpu        # build/bundle/ray-serve-cai-0.1.0-vllm0.32.0-cpu.tar

There:

    tar -xf ray-serve-cai-0.1.0-vllm0.32.0-cpu.tar
    ray-serve-cai-0.1.0-vllm0.32.0-cpu/start              # MODEL=/path/to/model WORKERS=2, as for make up

The image gets its release tag, under which it is saved; -dirty stands behind it, also in the archive's name, where the image was not built
from a commit. Needs disk for the compressed image twice.

Exit codes: 64 the command line cannot be used, 65 the image says of itself what is not so, 66 there is no such image,
69 Docker does not answer, 70 the image cannot be saved, 73 the archive cannot be written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

from images import archive, command
from images.daemon import connect
from images.errors import OutputError
from images.known import learn
from images.matrix import ROOT

FILES = (
    "compose/*.yaml",
    "compose/cluster.env",
    "compose/up.sh",
    "configs/*",
    "docs/*.md",
    "docs/benchmarks.*",
    "docs/decisions/*.md",
    "docs/examples/**/*",
    "images/shims/README.md",
    "LICENSE",
    "CHANGELOG.md",
)
START = ROOT / "compose" / "start.sh"
BLOCK = 1 << 20
DIRTY = "-dirty"
"""What the tag of an image ends with that is not what a commit makes: it must not pass for a release, here or where it is carried to."""


def bundle(image: str, into: Path) -> Path:
    """Write the archive of an image; a half-written one never has its name.

    Raises:
        ImageError: it cannot be done.
    """
    with connect() as daemon:
        known = learn(daemon, image)
        tag = known.tags[0] + (DIRTY if known.notes else "")
        if known.notes:
            _say(f"the image is none of a release, so its tag is {tag}: {'; '.join(known.notes)}")
        daemon.tag(known.image.id, known.repository, [tag])
        layers = daemon.layers(image)
    name = f"{known.repository.replace('/', '-')}-{tag}"
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix="half-") as scratch:
            root = Path(scratch, name)
            lay_out(root, f"{known.repository}:{tag}", layers)
            _say(f"compressing {known.repository}:{tag}, {known.image.size / 1e6:.0f} MB")
            _compress(f"{known.repository}:{tag}", root / "image.tar.zst")
            (root / "SHA256SUMS").write_text(checksums(root))
            _say("writing the archive")
            half = Path(scratch, "half.tar")
            with tarfile.open(half, "w", format=tarfile.PAX_FORMAT) as made:
                made.add(root, name, filter=_anybodys)
            return half.rename(into / f"{name}.tar")
    except OSError as error:
        raise OutputError(
            f"{into} cannot be written ({error.strerror}); free some space, or name another directory with --into."
        ) from error


def lay_out(root: Path, image: str, layers: Sequence[str]) -> None:
    """Everything but the image itself; what the bundle's start reads stands in IMAGE and LAYERS."""
    own = tracked()
    for pattern in FILES:
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file() and (own is None or str(file.relative_to(ROOT)) in own):
                target = root / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    shutil.copy(START, root / "start")
    (root / "IMAGE").write_text(f"{image}\n")
    (root / "LAYERS").write_text(json.dumps(list(layers), separators=(",", ":")) + "\n")


def tracked() -> set[str] | None:
    """What belongs to the project, and is nobody's private file; None where there is no git to say so."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return set(done.stdout.split("\0")) if done.returncode == 0 else None


def checksums(root: Path) -> str:
    """SHA-256 of all files below, as sha256sum --check reads them."""
    lines = []
    for file in sorted(root.rglob("*")):
        if file.is_file():
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
            lines.append(f"{digest.hexdigest()}  {file.relative_to(root)}\n")
    return "".join(lines)


def _compress(image: str, file: Path) -> None:
    compressor = zstandard.ZstdCompressor(level=9, threads=-1)
    with archive.saving(image) as stream, file.open("wb") as out, compressor.stream_writer(out) as compressed:
        shutil.copyfileobj(stream, compressed, BLOCK)


def _anybodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names and rights of whoever made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _say(text: str) -> None:
    print(f"bundle: {text}", file=sys.stderr, flush=True)


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python -m images.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="IMAGE", help="an image that Docker has, for example ray-serve-cai:vllm-cpu")
    parser.add_argument("--into", type=Path, default=ROOT / "build/bundle", metavar="DIR", help="where to (default: build/bundle)")
    given = parser.parse_args(arguments)
    made = bundle(given.image, given.into)
    _say(f"{made}, {made.stat().st_size / 1e6:.0f} MB; there: tar -xf {made.name}; {made.stem}/start")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    return command.main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
