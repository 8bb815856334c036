"""Looks at every layer of an image for what must not be in one, also where a later layer hides it.

A base image's own files cannot be taken out of its layer; what has setuid there must lose it in a later one.
"""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

CACHES = re.compile(
    r"^(root/\.cache|home/[^/]+/\.cache|root/\.local|var/cache/apt/.+\.deb|var/cache/apt/.+\.bin|var/lib/apt/lists/.*_Packages|tmp/uv)(/|$)"
    r"|\.whl$|/__pycache__/.*\.pyc\.\d+$|(^|/)\.(pip|npm|conda)/"
)
SEEDS = "/virtualenv/seed/wheels/embed/"
"""virtualenv's own data, with which Ray makes environments."""
HOMES = re.compile(r"^(home/cdsw|tmp)/.")
SECRET_FILES = re.compile(r"(^|/)(\.netrc|\.git-credentials|\.pypirc|id_(rsa|ed25519|ecdsa)|\.docker/config\.json|\.aws/credentials)$|^etc/(pip\.conf|uv/)")
SECRETS = re.compile(
    rb"-----BEGIN (?:RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY-----[\r\n]+[A-Za-z0-9+/=\r\n]{200}"
    rb"|\bhf_[A-Za-z0-9]{30,}\b|\bAKIA[0-9A-Z]{16}\b|://[^/\s:@'\"]{1,64}:[^/\s@'\"]{8,}@(?!(?:localhost|host|example|127\.))"
)
CONFIGURATION = re.compile(r"^(etc|root|home|var/lib/ray-serve-cai|opt/ray-serve-cai/(?!venv))")
WRITABLE = {"tmp", "var/tmp", "run/lock", "dev/shm", "etc", "etc/alternatives"}
"""Directories that everybody may write; the last two in Cloudera AI runtimes only."""


@dataclass
class Findings:
    """Faults by kind: the path, and what is wrong with it."""

    caches: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    homes: list[str] = field(default_factory=list)
    privileged: list[str] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        return [f"{kind}: {path}" for kind, paths in vars(self).items() for path in sorted(set(paths))]


def scan(image: str) -> Findings:
    """Read an image as `docker save` writes it."""
    with (
        subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        layers: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {}
        manifest: list[dict[str, object]] = []
        configurations: dict[str, bytes] = {}
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                continue
            if member.name == "manifest.json":
                manifest = json.load(content)
            elif member.size > 1 << 20 or member.name.endswith("layer.tar"):
                layers[member.name] = list(_members(content))
            else:
                raw = content.read()
                try:
                    layers[member.name] = list(_members(io.BytesIO(raw)))
                except tarfile.TarError:
                    configurations[member.name] = raw
    if process.returncode:
        raise AssertionError(f"docker save {image} failed")
    (entry,) = manifest
    names = [str(name) for name in entry["Layers"]]  # type: ignore[attr-defined]
    return judge([layers[name] for name in names], configurations[str(entry["Config"])])


def judge(layers: list[list[tuple[tarfile.TarInfo, bytes]]], configuration: bytes) -> Findings:
    """Faults of layers, the base image's first, and of the image's configuration, which keeps ENV and build arguments."""
    found = Findings()
    modes: dict[str, int] = {}
    for number, layer in enumerate(layers):
        for member, text in layer:
            path = member.name.removeprefix("./").rstrip("/")
            if CACHES.search(path) and not member.isdir() and SEEDS not in path:
                found.caches.append(path)
            if HOMES.search(path) and not member.isdir():
                found.homes.append(path)
            ours = number > 0 and member.size > 0
            if (ours and SECRET_FILES.search(path)) or SECRETS.search(text):
                found.secrets.append(path)
            modes[path] = member.mode if member.isreg() else 0
            if member.mode & stat.S_IWOTH and not member.issym() and not member.isdev() and path not in WRITABLE:
                found.writable.append(path)
    found.privileged = [path for path, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)]
    if SECRETS.search(configuration):
        found.secrets.append("the image's configuration")
    return found


def _members(content: io.BufferedIOBase | io.BytesIO) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=content, mode="r|") as layer:
        for member in layer:
            small = member.isreg() and member.size <= 64 << 10 and CONFIGURATION.match(member.name.removeprefix("./"))
            text = layer.extractfile(member) if small else None
            yield member, text.read() if text else b""
