"""The two tables that pages on images share: layers, and the heaviest packages."""

from __future__ import annotations

from collections.abc import Sequence

from images.markdown import code, megabytes, shortened, table
from images.measured import Layer, Package

COMMAND_CHARACTERS = 60


def layer_table(layers: Sequence[Layer]) -> str:
    """Layers, the base's first; one without files is left out."""
    rows = []
    for layer in layers:
        if layer.files:
            holds = ", ".join(f"{thing} {megabytes(size)}" for thing, size in layer.holds)
            digest = code(layer.digest.removeprefix("sha256:")[:12])
            rows.append(
                (digest, megabytes(layer.size), f"{layer.files:,}", holds, code(shortened(command(layer.command), COMMAND_CHARACTERS)))
            )
    return table(("Layer", "Size", "Files", "Mostly", "Made by"), rows, right=(1, 2))


def package_table(packages: Sequence[Package]) -> str:
    """Distributions in the order given."""
    rows = ((one.name, one.version, megabytes(one.size)) for one in packages)
    return table(("Distribution", "Version", "Size"), rows, right=(2,))


def command(made_by: str) -> str:
    """The command of a layer without what BuildKit adds to it; a base image may have none."""
    return made_by.removesuffix("# buildkit").strip().removeprefix("RUN ").removeprefix("/bin/sh -c ").strip() or "the base image"
