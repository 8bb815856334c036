"""Looks at what is installed in an image, from inside: `python3 -I -c TEXT` in a container; prints one JSON object.

Standard library only, for Python 3.10 and later. Nothing is imported that is looked at: importing torch takes seconds, and what a
module says of itself is no better than what a label says. ``images/inside.py`` is the other end.
"""

import json
import os
import platform
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

MANIFEST = Path("/opt/ray-serve-cai/manifest.json")
CUDA = re.compile(r"^cuda[^=\n]*= *'([^']+)'", re.MULTILINE)


def normal(name: str) -> str:
    """PEP 503's form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def files(found: Distribution) -> set[str]:
    """The paths of a distribution's files that are there, with what was compiled of them."""
    paths: set[str] = set()
    for file in found.files or []:
        path = os.path.normpath(str(found.locate_file(file)))
        paths.add(path)
        if path.endswith(".py"):
            directory, name = os.path.split(path)
            paths.add(os.path.join(directory, "__pycache__", f"{name[:-3]}.{sys.implementation.cache_tag}.pyc"))
    return {path for path in paths if os.path.isfile(path) and not os.path.islink(path)}


def torch_cuda(installed: "list[Distribution]") -> "str | None":
    """The CUDA version that torch was built for."""
    for found in installed:
        if normal(found.metadata["Name"]) == "torch":
            text = Path(str(found.locate_file("torch/version.py"))).read_text()
            version = CUDA.search(text)
            return version[1] if version else None
    return None


def fields(text: str, separator: str) -> "dict[str, str]":
    """The keys and values of a file of lines; lines that continue another are left out."""
    pairs = (line.partition(separator) for line in text.splitlines() if line[:1].strip())
    return {key: value.strip().strip('"') for key, found, value in pairs if found}


def debian() -> "dict[str, str]":
    """The Debian or Ubuntu packages that are installed, with their versions."""
    status = Path("/var/lib/dpkg/status")
    stanzas = status.read_text(errors="replace").split("\n\n") if status.exists() else []
    packages = [fields(stanza, ":") for stanza in stanzas]
    return {one["Package"]: one["Version"] for one in packages if one.get("Status", "").endswith(" installed")}


def look() -> "dict[str, Any]":
    """All of it."""
    installed = [found for found in distributions() if found.metadata["Name"]]
    counted: set[str] = set()
    sizes: dict[str, int] = {}
    for found in installed:
        own = files(found) - counted
        counted |= own
        sizes[normal(found.metadata["Name"])] = sum(os.path.getsize(path) for path in own)
    site = {str(found.locate_file("")).rstrip("/") for found in installed}
    everything = [os.path.join(top, name) for root in site for top, _, names in os.walk(root) for name in names]
    total = sum(os.path.getsize(path) for path in set(everything) - counted if not os.path.islink(path))
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "distributions": {normal(found.metadata["Name"]): found.version for found in installed},
        "sizes": sizes,
        "unowned": total,
        "torch_cuda": torch_cuda(installed),
        "os_release": fields(Path("/etc/os-release").read_text(), "="),
        "debian": debian(),
        "manifest": MANIFEST.read_text() if MANIFEST.exists() else None,
    }


if __name__ == "__main__":
    print(json.dumps(look()))
