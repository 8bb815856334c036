"""Reads what `docker save` writes, as a stream: nothing is unpacked, and no layer is held in memory.

An archive is a tar of blobs; manifest.json, which says what each blob is, comes last. So a blob that begins as JSON is kept, every
other one is read as a layer, and the layers are put in order at the end. Docker before 25 calls layers ID/layer.tar; both work.
https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar

from images.errors import DaemonError, ImageError, NoImageError

BLOCK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A file, directory or link of a layer. ``read`` gives a regular file's bytes, and only until the next entry is taken."""

    path: str
    info: tarfile.TarInfo
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Layer(Generic[T]):
    """A layer's digest, the command that made it, and what was made of its entries."""

    digest: str
    command: str
    value: T


@dataclass(frozen=True)
class Saved(Generic[T]):
    """An image: its layers, the base's first, and its configuration, which has ``config``, ``history`` and ``rootfs``."""

    layers: list[Layer[T]]
    configuration: dict[str, Any]


def read(stream: IO[bytes], summarise: Callable[[Iterator[Entry]], T]) -> Saved[T]:
    """Read an archive to its end; ``summarise`` is called for each layer's entries, in the order of the archive.

    Raises:
        ImageError: it is cut short, damaged, or holds another number of images than one.
    """
    layers: dict[str, T] = {}
    documents: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                start = content.peek(1)[:1]  # type: ignore[attr-defined]  # it is a BufferedReader
                if start in (b"{", b"["):
                    documents[member.name] = content.read()
                elif member.name.startswith("blobs/") or member.name.endswith("/layer.tar"):
                    layers[member.name] = summarise(_entries(content))
        return _in_order(layers, documents)
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise ImageError(f"the archive of the image cannot be read ({error!r}); save it anew.") from error


@contextmanager
def saving(image: str) -> Iterator[IO[bytes]]:
    """The stream of `docker save IMAGE`.

    Raises:
        NoImageError: Docker does not have the image.
        DaemonError: there is no docker command, or Docker does not answer.
    """
    with tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE, stderr=words)
        except FileNotFoundError as error:
            raise DaemonError("there is no docker command on the PATH; install the Docker client.") from error
        assert process.stdout is not None
        try:
            yield process.stdout
            while process.stdout.read(BLOCK):
                pass
        except ImageError:
            # A stream that ends early ends so because of what Docker says.
            process.stdout.close()
            if process.wait():
                _explain(image, words)
            raise
        finally:
            process.stdout.close()
            code = process.wait()
        if code:
            _explain(image, words)
            raise DaemonError(f"docker save {image} ended with exit code {code} before the whole image was written; run it again.")


def _explain(image: str, words: IO[bytes]) -> None:
    words.seek(0)
    said = " ".join(words.read().decode(errors="replace").split())
    if "No such image" in said or "reference does not exist" in said:
        raise NoImageError(f"Docker has no image {image!r}; build it with images/build.sh, or pull it.")
    if said:
        raise DaemonError(f"docker save {image} failed: {said}")


def _entries(content: IO[bytes]) -> Iterator[Entry]:
    with tarfile.open(fileobj=content, mode="r|*", bufsize=BLOCK) as layer:
        for info in layer:
            path = info.name.removeprefix("./").strip("/")
            if path not in ("", "."):
                yield Entry(path, info, lambda info=info: _bytes(layer, info))  # type: ignore[misc]


def _bytes(layer: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = layer.extractfile(info) if info.isreg() else None
    return content.read() if content else b""


def _in_order(layers: dict[str, T], documents: dict[str, bytes]) -> Saved[T]:
    manifest = json.loads(documents["manifest.json"])
    if len(manifest) != 1:
        raise ImageError(f"the archive holds {len(manifest)} images; save one.")
    configuration = json.loads(documents[manifest[0]["Config"]])
    commands = [made.get("created_by", "") for made in configuration.get("history", []) if not made.get("empty_layer")]
    digests = configuration["rootfs"]["diff_ids"]
    names = manifest[0]["Layers"]
    commands += [""] * (len(names) - len(commands))
    return Saved([Layer(d, c, layers[n]) for d, c, n in zip(digests, commands, names, strict=True)], configuration)
