"""What images/build.py is going to do: which images, in which order, with what of this machine. Nothing here has effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images import build_errors

NEEDED_GB = {"cpu": 8, "cuda": 32}
"""Free space that the first build of an image takes at its peak, wheels and intermediate layers counted."""
AGAIN_GB = 1
"""And the next ones, which keep most layers."""
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
"""The first that is set counts."""


class BuildError(RuntimeError):
    """The build cannot be done; the text is for a person. Exit codes are those of sysexits.h."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Surroundings:
    """What this machine brings to a build: a CA bundle, an index, and a directory of wheels."""

    ca: Path | None
    index: str | None
    wheels: Path | None


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


def files(around: Surroundings) -> dict[str, str]:
    """The settings of pip and uv that reach the build as secrets, by file name."""
    if not around.index:
        return {}
    return {"pip.conf": f"[global]\nindex-url = {around.index}\n", "uv.toml": f'[[index]]\nurl = "{around.index}"\ndefault = true\n'}


def settings(images: Iterable[str], around: Surroundings, scratch: Path) -> list[str]:
    """The options that give bake what this machine has; ``scratch`` holds what `files` returns."""
    options = []
    if around.ca:
        options.append(f"*.secrets=id=ca,src={around.ca}")
    options += [f"*.secrets=id={name.partition('.')[0]},src={scratch / name}" for name in files(around)]
    if around.wheels:
        # What this directory holds is not asked for elsewhere: PyTorch's index may be out of reach here. CUDA images
        # go without: such a directory usually holds CPU builds of torch, which any pin of a plain version prefers.
        for image in images:
            if not is_cuda(image):
                options += [f"{image}.contexts.wheels={around.wheels}", f"{image}.args.EXTRA_INDEX_URL="]
    return [word for option in options for word in ("--set", option)]


def ca_bundle(environment: Mapping[str, str]) -> Path | None:
    """The CA bundle that this machine was told to use, for builds behind a proxy that opens TLS.

    Raises:
        BuildError: it cannot be read, or is none.
    """
    name = next((name for name in CA_VARIABLES if environment.get(name)), None)
    if not name:
        return None
    bundle, fix = Path(environment[name]), "name a CA bundle, or unset it."
    try:
        text = bundle.read_text(errors="replace")
    except OSError as error:
        raise BuildError(f"{name} is '{bundle}', which cannot be read ({error.strerror}); {fix}", 66) from error
    if "-----BEGIN CERTIFICATE-----" not in text and "-----BEGIN TRUSTED CERTIFICATE-----" not in text:
        raise BuildError(f"{name} is '{bundle}', which holds no certificate in PEM form; {fix}", 66)
    return bundle


def surroundings(environment: Mapping[str, str], pip: Mapping[str, str]) -> Surroundings:
    """What the environment and pip's settings, under uv's names, say of this machine.

    Raises:
        BuildError: a CA bundle is named and is none.
    """
    wheels = [Path(place) for place in pip.get("UV_FIND_LINKS", "").split() if Path(place).is_dir()]
    return Surroundings(ca_bundle(environment), pip.get("UV_DEFAULT_INDEX"), wheels[0] if wheels else None)


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
