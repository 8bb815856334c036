"""A model in the hub's cache: its blobs, half or whole, and the snapshots that link to them.

Layout: huggingface_hub's cache guide. What is on its way is ``blobs/<digest>.incomplete``; a snapshot is linked, and a branch points to it,
only when all its files are whole and verified.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ray_serve_cai.errors import ResourceError, sized
from ray_serve_cai.fetch.hub import Listing
from ray_serve_cai.fetch.selection import File

_CHUNK = 1 << 20
_SHA1 = 40


class Store:
    """One model's directory of the cache."""

    def __init__(self, model: str, directory: Path) -> None:
        """Raises ResourceError: nothing can be written there."""
        self._model = model
        self._directory = directory
        self._blobs = directory / "blobs"
        self.lock = directory.parent / ".locks" / directory.name / "fetch.lock"
        try:
            for made in (self._blobs, self.lock.parent):
                made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"the model cache {directory.parent} cannot be written to by uid {os.getuid()} ({error.strerror}); "
                "mount a volume there, or name another with HF_HOME."
            ) from error

    def snapshot(self, commit: str) -> Path:
        """The directory of a commit."""
        return self._directory / "snapshots" / commit

    def incomplete(self, file: File) -> Path:
        """Where a file's bytes are while it is not whole."""
        return self._blobs / f"{file.digest}.incomplete"

    def arrived(self, file: File) -> int:
        """How many bytes of a file that is not whole are there."""
        path = self.incomplete(file)
        return path.stat().st_size if path.exists() else 0

    def has(self, commit: str, file: File, *, verify: bool = False) -> bool:
        """Whether a file is there with its size, and on demand with its digest. A wrong one is deleted."""
        path = next((one for one in (self._blob(file), self.snapshot(commit) / file.name) if one.is_file()), None)
        if path is None:
            return False
        if path.stat().st_size == file.size and (not verify or digest(path, file) == file.digest):
            return True
        path.resolve().unlink()
        return False

    def keep(self, file: File) -> None:
        """A whole file is one from now on."""
        os.replace(self.incomplete(file), self._blob(file))

    def link(self, listing: Listing, files: Iterable[File], revision: str) -> Path:
        """Make the snapshot of files that are all there, and let the revision point to it."""
        snapshot = self.snapshot(listing.commit)
        for file in files:
            pointer, blob = snapshot / file.name, self._blob(file)
            if pointer.exists():
                continue
            pointer.parent.mkdir(parents=True, exist_ok=True)
            pointer.unlink(missing_ok=True)
            try:
                pointer.symlink_to(os.path.relpath(blob, pointer.parent))
            except OSError:  # a file system without links: huggingface_hub moves the file there, too
                os.replace(blob, pointer)
        if revision != listing.commit:
            ref = self._directory / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            new = ref.with_name(f"{ref.name}.new")
            new.write_text(listing.commit)
            os.replace(new, ref)
        return snapshot

    def check_room(self, count: int) -> None:
        """See that so many more bytes fit.

        Raises:
            ResourceError: they do not.
        """
        free = shutil.disk_usage(self._directory).free
        if count > free:
            raise ResourceError(
                f"model {self._model!r} needs {sized(count)} more in the model cache {self._directory.parent}, "
                f"which has {sized(free)} free; give its volume more room, or name another with HF_HOME."
            )

    def _blob(self, file: File) -> Path:
        return self._blobs / file.digest


def digest(path: Path, file: File) -> str:
    """What is there, hashed as the hub hashed the file: sha256, or sha1 behind git's header."""
    made = hashlib.sha256()
    if len(file.digest) == _SHA1:
        made = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()
