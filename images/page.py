"""An image's page: what is in it, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from images.archive import Layer
from images.contents import Contents
from images.inside import Inside
from images.known import Known
from images.markdown import code, megabytes, shortened, table
from images.tags import CREATED, REVISION

PACKAGES = 25


def page(known: Known, layers: Sequence[Layer[Contents]]) -> str:
    """The page; everything on it was read from the image."""
    image, inside, facts = known.image, known.inside, known.facts
    versions = {
        "Package": f"ray-serve-cai {facts.package}",
        "Engine": f"{facts.engine} {facts.engine_version}",
        "Ray": facts.ray,
        "torch": facts.torch,
        "CUDA": facts.cuda or "none",
        "Python": facts.python,
        "System": inside.os_release.get("PRETTY_NAME", "unknown"),
        "Architecture": inside.machine,
        "Build id": code(known.manifest.build_id),
        "Revision": code(image.labels[REVISION]) if image.labels[REVISION] else "none",
        "Created": image.labels[CREATED],
        "Image id": code(image.id),
        "Size": megabytes(image.size),
    }
    parts = [
        f"# {known.name}\n",
        table(("What", "Value"), versions.items()),
        "## Tags\n",
        "".join(f"- {code(tag)}\n" for tag in known.tags),
        *(f"{note}.\n" for note in known.notes),
        "## Layers\n",
        layer_table(layers),
        f"## The biggest packages\n\n{len(inside.distributions)} distributions; each with its files in site-packages.\n",
        package_table(inside, PACKAGES),
        "## Debian packages\n",
        table(("Package", "Version"), sorted(inside.debian.items())),
    ]
    return "\n".join(parts)


def layer_table(layers: Sequence[Layer[Contents]]) -> str:
    """Layers, the base's first; an empty one is left out."""
    rows = []
    for layer in layers:
        if layer.value.files:
            holds = ", ".join(f"{thing} {megabytes(size)}" for thing, size in layer.value.holds)
            digest = code(layer.digest.removeprefix("sha256:")[:12])
            rows.append((digest, megabytes(layer.value.size), f"{layer.value.files:,}", holds, code(shortened(command(layer.command), 60))))
    return table(("Layer", "Size", "Files", "Mostly", "Made by"), rows, right=(1, 2))


def package_table(inside: Inside, most: int) -> str:
    """The heaviest distributions in site-packages."""
    heaviest = sorted(inside.sizes.items(), key=lambda item: (-item[1], item[0]))[:most]
    return table(("Distribution", "Version", "Size"), ((n, inside.distributions[n], megabytes(size)) for n, size in heaviest), right=(2,))


def command(made_by: str) -> str:
    """The command of a layer without what BuildKit adds to it; a base image may have none."""
    return made_by.removesuffix("# buildkit").strip().removeprefix("RUN ").removeprefix("/bin/sh -c ").strip() or "the base image"
