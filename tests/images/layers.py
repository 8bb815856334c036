"""Looks at every layer of an image for what must not be in one, also where a later layer hides it.

A base image's own files cannot be taken out of its layer; what has setuid there must lose it in a later one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from images import archive
from images.archive import Entry

CACHES = re.compile(
    r"^(root/\.(cache|local)|home/[^/]+/\.cache|var/cache/apt/.+\.(deb|bin)|var/lib/apt/lists/.+|tmp/uv)(/|$)"
    r"|\.whl$|/__pycache__/.*\.pyc\.\d+$|(^|/)\.(pip|npm|conda)/"
)
NO_CACHES = re.compile(r"/virtualenv/seed/wheels/embed/|^var/lib/apt/lists/(lock$|partial/?$|auxfiles/?$)")
"""virtualenv's own data, with which Ray makes environments; and what apt makes of an empty cache."""
HOMES = re.compile(r"^(home/cdsw|tmp)/.")
PRIVATE = re.compile(
    r"(^|/)(\.netrc|\.git-credentials|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|\.docker/config\.json|\.aws/credentials|\.huggingface/token)$"
)
SETTINGS = re.compile(r"(^|/)(pip\.conf|\.pip/pip\.conf|uv\.toml)$")
"""The settings of whoever builds: no secret by themselves, but no one else's business."""
TOKENS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+(?:[A-Za-z-]+: [^\n]*\n)*\s*[A-Za-z0-9+/=]{40}"
    rb"|\bhf_[A-Za-z0-9]{30,}\b|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bglpat-[A-Za-z0-9_-]{20}\b"
)
"""What nobody writes by chance."""
ASSIGNED = re.compile(
    rb"\b(?:[A-Z0-9]+_)*(?:TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|APIV2_KEY|ACCESS_KEY)=[\"']?(?![\"'$<{(])[^\s\"'$<{(]{8,}"
    rb"|://[^/\s:@'\"<>{$%]{1,64}:[^/\s@'\"<>{$%]{3,}@"
)
"""What examples have, too, so packages are not searched for it."""
PACKAGES = re.compile(r"(^|/)site-packages/|^usr/(lib|share)/")
PUBLISHED = re.compile(r"/site-packages/(transformers/testing_utils\.py|tornado/test/test\.key)$")
"""Hugging Face's token for tests of its staging hub, and tornado's key for tests: each is in the package that everybody has."""
TEXT_BYTES = 256 << 10
WRITABLE = {"tmp", "var/tmp", "run/lock", "dev/shm"}
"""Directories that everybody may write, and from which only the owner may remove."""
RUNTIME_WRITABLE = {"etc", "etc/alternatives"}
"""What Cloudera AI asks to be writable for everybody."""


@dataclass
class Findings:
    """Faults by kind: the path, and what is wrong with it."""

    caches: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    homes: list[str] = field(default_factory=list)
    privileged: list[str] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """A member of a layer; ``kind`` is tar's, ``secret`` says that its text holds one."""

    path: str
    kind: bytes
    mode: int
    size: int
    secret: bool


def scan(image: str) -> Findings:
    """Read an image as `docker save` writes it."""
    with archive.saving(image) as stream:
        return scan_archive(stream)


def scan_archive(stream: IO[bytes]) -> Findings:
    """Read an archive of `docker save`."""
    saved = archive.read(stream, lambda entries: [look(entry) for entry in entries])
    return judge([layer.value for layer in saved.layers], saved.configuration)


def look(entry: Entry) -> Seen:
    """What a member is, and whether it is a text that holds a secret. Compiled Python holds what its source holds."""
    info = entry.info
    readable = info.isreg() and 0 < info.size <= TEXT_BYTES and not entry.path.endswith(".pyc")
    text = entry.read() if readable else b""
    return Seen(entry.path, info.type, info.mode, info.size, b"\0" not in text[:1024] and secret(entry.path, text))


def secret(path: str, text: bytes) -> bool:
    """Whether a file's text holds a secret."""
    if PUBLISHED.search(path):
        return False
    return bool(TOKENS.search(text)) or (not PACKAGES.search(path) and bool(ASSIGNED.search(text)))


def judge(layers: Sequence[Iterable[Seen]], configuration: dict[str, Any]) -> Findings:
    """Faults of layers, the base image's first, and of the image's configuration, which keeps ENV, labels and each step's command."""
    found = Findings()
    modes: dict[str, int] = {}
    labels = configuration.get("config", {}).get("Labels") or {}
    allowed = WRITABLE | (RUNTIME_WRITABLE if labels.get("io.ray-serve-cai.variant") == "cai" else set())
    for number, layer in enumerate(layers):
        for seen in layer:
            if _is_removal(seen.path, modes):
                continue
            ours, file = number > 0, seen.kind != b"5"
            if file and CACHES.search(seen.path) and not NO_CACHES.search(seen.path):
                found.caches.append(seen.path)
            if file and HOMES.search(seen.path):
                found.homes.append(seen.path)
            if seen.secret or (seen.size and PRIVATE.search(seen.path)) or (ours and seen.size and SETTINGS.search(seen.path)):
                found.secrets.append(seen.path)
            if seen.kind in b"05" and seen.mode & stat.S_IWOTH and not _is_shared(seen, allowed):
                found.writable.append(seen.path)
            modes[seen.path] = 0 if seen.kind == b"5" else seen.mode
    found.privileged = [path for path, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)]
    for words in strings(configuration):
        if TOKENS.search(words.encode()) or ASSIGNED.search(words.encode()):
            found.secrets.append("the image's configuration")
            break
    return found


def strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def _is_shared(seen: Seen, allowed: set[str]) -> bool:
    return seen.path in allowed and (seen.path in RUNTIME_WRITABLE or bool(seen.mode & stat.S_ISVTX))


def _is_removal(path: str, modes: dict[str, int]) -> bool:
    """Whether a member takes away what layers below have, which is then gone from ``modes``.

    https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
    """
    directory, _, name = path.rpartition("/")
    if not name.startswith(".wh."):
        return False
    below = f"{directory}/" if directory else ""
    gone = below if name == ".wh..wh..opq" else below + name.removeprefix(".wh.")
    for other in [other for other in modes if other == gone or other.startswith(gone if gone.endswith("/") else f"{gone}/")]:
        del modes[other]
    return True
