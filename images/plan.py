"""What images/build.py is going to do: which images, in which order, with what of this machine. Nothing here has effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from images import build_errors
from images.build_errors import BuildError
from images.surroundings import Surroundings, files

NEEDED_GB = {"cpu": 8, "cuda": 32}
"""Free space that the first build of an image takes at its peak, wheels and intermediate layers counted."""
AGAIN_GB = 1
"""And the next ones, which keep most layers."""


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
        made.setdefault(image.removesuffix("-cai") if is_cuda(image) else "cpu", []).append(image)
    return list(made.values())


def is_cuda(image: str) -> bool:
    return "-cuda" in image


def settings(images: Iterable[str], around: Surroundings, scratch: Path) -> list[str]:
    """The options that give bake what this machine has; ``scratch`` holds what `files` returns."""
    options = []
    if around.ca:
        options.append(f"*.secrets=id=ca,src={around.ca}")
    options += [f"*.secrets=id={name.partition('.')[0]},src={scratch / name}" for name in files(around)]
    for image in images:
        # Without a value bake takes that of its environment, which no list of processes shows; Docker keeps these out of images.
        options += [f"{image}.args.{name}" for name, _ in around.proxies if not around.wheelhouse]
        contexts = contexts_of(image, around)
        options += [f"{image}.contexts.{name}={place}" for name, place in contexts.items()]
        if contexts or around.extra:
            # What is there is not asked for elsewhere: PyTorch's index may be out of reach here.
            options.append(f"{image}.args.EXTRA_INDEX_URL=")
    return [word for option in options for word in ("--set", option)]


def contexts_of(target: str, around: Surroundings) -> dict[str, Path]:
    """Directories of this machine that a target of images/docker-bake.hcl is built from, by the name of their build context."""
    if around.wheelhouse:
        wheels = around.wheelhouse / "wheels" / target.removesuffix("-cai")
        return {"wheels": wheels} | {name: around.wheelhouse / name for name in ("tool-wheels", "debs")}
    return {"wheels": around.wheels} if around.wheels else {}


def check_disk(images: Iterable[str], present: Iterable[str], free_bytes: int, root: Path) -> None:
    """Refuse to start what would fill Docker's disk, on which ``root`` is.

    Raises:
        BuildError: there is less room than the first build of an image takes.
    """
    new = set(images) - set(present)
    needed = max((NEEDED_GB["cuda" if is_cuda(image) else "cpu"] for image in new), default=AGAIN_GB)
    if free_bytes < needed * 1e9:
        what = ", ".join(sorted(new)) or "an image again"
        raise BuildError(
            f"{root} has {free_bytes / 1e9:.1f} GB free and building {what} takes up to {needed} GB; "
            "free some: docker system df; docker builder prune",
            build_errors.DISK,
        )
