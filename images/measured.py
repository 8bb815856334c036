"""What was measured of each image, as docs/images-sizes.json keeps it: bytes, with the day and the image's id."""

from __future__ import annotations

import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from images.archive import Saved
from images.contents import Contents
from images.errors import ContradictionError, NoImageError
from images.inside import Inside

HEAVIEST = 25


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layer(_Record):
    """A layer: ``size`` adds up its files, ``holds`` names the heaviest things in it, ``command`` is what made it."""

    digest: str
    size: int
    files: int
    holds: list[tuple[str, int]]
    command: str


class Package(_Record):
    """A Python distribution; ``size`` adds up its files in site-packages and what was compiled of them."""

    name: str
    version: str
    size: int


class Image(_Record):
    """An image: ``size`` is Docker's, uncompressed; ``zstd`` and ``gzip`` are `docker save` compressed with levels 3 and 6.

    ``packages`` are the heaviest of ``distributions``; ``layers`` begin with the base's.
    """

    measured: datetime.date
    id: str
    size: int
    zstd: int
    gzip: int
    distributions: int
    layers: list[Layer]
    packages: list[Package]


class Sizes(_Record):
    """All images that were ever measured, by their names in images/docker-bake.hcl."""

    images: dict[str, Image] = {}

    def with_image(self, name: str, image: Image) -> Sizes:
        """The same with one image measured anew; all others keep what they have."""
        return Sizes(images={**self.images, name: image})

    def as_text(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def layers(saved: Saved[Contents]) -> list[Layer]:
    """The layers of an image that was saved."""
    return [
        Layer(digest=one.digest, command=one.command, size=one.value.size, files=one.value.files, holds=one.value.holds)
        for one in saved.layers
    ]


def packages(inside: Inside) -> list[Package]:
    """The heaviest distributions of an image, the heaviest first."""
    heaviest = sorted(inside.sizes.items(), key=lambda item: (-item[1], item[0]))[:HEAVIEST]
    return [Package(name=name, version=inside.distributions[name], size=size) for name, size in heaviest]


def read(file: Path) -> Sizes:
    """Read a file of measurements.

    Raises:
        NoImageError: it is not there or cannot be read.
        ContradictionError: it is something else.
    """
    try:
        return Sizes.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoImageError(f"{file} cannot be read ({error.strerror}); measure: make sizes") from error
    except ValidationError as error:
        raise ContradictionError(f"{file} is no file of measurements ({error.errors()[0]['msg']}); delete it, then: make sizes") from error
