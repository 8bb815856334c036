"""Which files of a model an engine needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

SAFETENSORS = ".safetensors"
PICKLED = (".bin", ".bin.index.json", ".pt")
"""Weights that engines read only where there are no safetensors."""
OTHER_RUNTIMES = (".pth", ".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack", ".ot", ".tflite", ".ckpt", ".mlmodel", ".llamafile")
FOR_PEOPLE = (".md", ".gitattributes", ".gitignore", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".mp4", ".pdf")
DIRECTORIES = frozenset({"original", "gguf", "onnx", "openvino", "coreml", "flax", "tf", "metal"})
"""In which publishers put the same weights for something else."""


@dataclass(frozen=True)
class File:
    """A file as the hub describes it: ``digest`` is the sha256 of a large one, and git's sha1 of any other."""

    name: str
    size: int
    digest: str


def split(files: Iterable[File]) -> tuple[list[File], list[File]]:
    """What an engine needs, and what is left out: weights that are there as safetensors too, other runtimes', what only people read."""
    given = list(files)
    better = any(file.name.endswith(SAFETENSORS) and not _aside(file) for file in given)
    unread = (*OTHER_RUNTIMES, *FOR_PEOPLE, *(PICKLED if better else ()))
    left_out = [file for file in given if _aside(file) or file.name.lower().endswith(unread)]
    return [file for file in given if file not in left_out], left_out


def _aside(file: File) -> bool:
    return not DIRECTORIES.isdisjoint(PurePosixPath(file.name).parts[:-1])
