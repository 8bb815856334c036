"""Write an image's manifest.json from what is installed; fails where that is not what versions.json pins.

manifest.py VERSIONS_JSON IMAGE VARIANT --context DIR > manifest.json     # DIR has all that an image is built from
manifest.py VERSIONS_JSON IMAGE VARIANT SOURCE... > manifest.json

VARIANT is engine or cai. Runs inside images, so without this package's other modules. Exit codes: 1 an image is not what is pinned, 64 the
command line cannot be used, 66 a file is not there.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

INPUTS = (
    *("ray_serve_cai", "pyproject.toml", "README.md", "LICENSE", "images/Dockerfile", "images/apt.sh", "images/cai.sh", "images/debs"),
    *("images/demo/model", "images/entrypoint.sh", "images/layer.sh", "images/locks/tools.txt", "images/manifest.py", "images/sbom.py"),
    *("images/shims", "images/slim.sh", "images/versions.json"),
)
"""What every image is built from, besides its own locks."""


def inputs(root: Path, image: str) -> list[Path]:
    """What an image is built from, a Cloudera AI runtime as its engine's image; what is not there is left out."""
    names = (*INPUTS, f"images/locks/{image.removesuffix('-cai')}")
    return [root / name for name in names if (root / name).exists()]


def build_id(sources: list[Path]) -> str:
    """A hash over the files' paths and contents: equal inputs, equal id."""
    digest = hashlib.sha256()
    for source in sources:
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(source.parent)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, from its version.py; importing torch takes seconds."""
    text = Path(str(distribution("torch").locate_file("torch/version.py"))).read_text()
    found = re.search(r"^cuda[^=\n]*= *'([^']+)'", text, re.MULTILINE)
    return found[1] if found else None


def installed(package: str) -> str:
    """The version of a distribution; ``none`` where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def main(versions_file: str, name: str, variant: str, *sources: str) -> None:
    """Print the manifest."""
    versions = json.loads(Path(versions_file).read_text())
    image = versions["images"][name]
    for package, pinned in image["packages"].items():
        if (found := installed(package)) != pinned:
            sys.exit(f"{package} {found} is installed and versions.json pins {pinned}; run: make locks")
    if not platform.python_version().startswith(versions["python"] + "."):
        sys.exit(f"Python {platform.python_version()} is in the image and versions.json wants {versions['python']}")
    if torch_cuda() != image["cuda"]:
        sys.exit(f"torch {version('torch')} is built for CUDA {torch_cuda()} and versions.json says {image['cuda']}")
    manifest = {
        "schema": versions["schema"],
        "build_id": build_id(inputs(Path(sources[1]), name) if sources[:1] == ("--context",) else [Path(source) for source in sources]),
        "protocol": versions["protocol"],
        "ray": version("ray"),
        "python": platform.python_version(),
        "engine": image["engine"],
        "engine_version": version(image["distribution"]),
        "device": image["device"],
        "torch": version("torch"),
        "cuda": torch_cuda(),
        "variant": variant,
        "package": version("ray-serve-cai"),
        "image": name if variant == "engine" else f"{name}-{variant}",
    }
    print(json.dumps(manifest, indent=2))


def refused(arguments: list[str]) -> tuple[str, int] | None:
    """Why a command line cannot be used, and the exit code that goes with it."""
    if len(arguments) < 4 or arguments[3:] == ["--context"] or arguments[0].startswith("-"):
        return "manifest.py takes VERSIONS_JSON IMAGE VARIANT and --context DIR or SOURCE...; see --help.", 64
    versions_file, name, variant, *sources = arguments
    missing = [path for path in (versions_file, *sources[sources[0] == "--context" :]) if not Path(path).exists()]
    if missing:
        return f"there is no {missing[0]}; name a file or directory that is there.", 66
    images = json.loads(Path(versions_file).read_text())["images"]
    if name not in images:
        return f"there is no image {name!r}; use one of {versions_file}: {', '.join(images)}.", 64
    return None if variant in ("engine", "cai") else (f"there is no variant {variant!r}; use engine or cai.", 64)


def run(arguments: list[str]) -> int:
    """Do what the command line says; the exit code."""
    if "--help" in arguments:
        print(__doc__)
        return 0
    if fault := refused(arguments):
        print(f"ray-serve-cai: error: {fault[0]}", file=sys.stderr)
        return fault[1]
    main(*arguments)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
