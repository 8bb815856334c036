"""Images made by hand, as `docker save` writes them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

Member = tuple[tarfile.TarInfo, bytes]


def file(path: str, content: bytes = b"", mode: int = 0o644) -> Member:
    """A regular file."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(content), mode
    return info, content


def directory(path: str, mode: int = 0o755) -> Member:
    """A directory."""
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""


def link(path: str, to: str) -> Member:
    """A symbolic link, which tar says anybody may write."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, to, 0o777
    return info, b""


def tar(*members: Member, compression: str = "") -> bytes:
    """A tar of members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image(*layers: list[Member], config: dict[str, Any] | None = None, commands: list[str] | None = None, compression: str = "") -> bytes:
    """An archive with layers, the base's first; ``commands`` are what made them."""
    blobs = [tar(*layer, compression=compression) for layer in layers]
    digests = [hashlib.sha256(blob).hexdigest() for blob in blobs]
    commands = commands or [f"RUN step {number} # buildkit" for number in range(len(blobs))]
    history = [{"created_by": "ENV A=b", "empty_layer": True}, *({"created_by": command} for command in commands)]
    described = {
        "config": config or {},
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    document = json.dumps(described).encode()
    names = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (*blobs, document)}
    config_name = f"blobs/sha256/{hashlib.sha256(document).hexdigest()}"
    manifest = [{"Config": config_name, "RepoTags": ["made:hand"], "Layers": [f"blobs/sha256/{digest}" for digest in digests]}]
    members = [directory("blobs"), *(file(name, blob) for name, blob in sorted(names.items()))]
    return tar(*members, file("manifest.json", json.dumps(manifest).encode()), file("oci-layout", b"{}"))


def old_image(layer: list[Member]) -> bytes:
    """As Docker before 25 writes it."""
    described = {"config": {}, "history": [], "rootfs": {"diff_ids": ["sha256:0"]}}
    manifest = [{"Config": "c.json", "Layers": ["0/layer.tar"]}]
    return tar(
        directory("0"),
        file("0/VERSION", b"1.0"),
        file("0/layer.tar", tar(*layer)),
        file("c.json", json.dumps(described).encode()),
        file("manifest.json", json.dumps(manifest).encode()),
    )
