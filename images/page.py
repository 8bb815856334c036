"""An image's page: what is in it, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from images.known import Known
from images.markdown import code, megabytes, table
from images.measured import Layer, packages
from images.tables import layer_table, package_table
from images.tags import CREATED, REVISION


def page(known: Known, layers: Sequence[Layer]) -> str:
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
        package_table(packages(inside)),
        "## Debian packages\n",
        table(("Package", "Version"), sorted(inside.debian.items())),
    ]
    return "\n".join(parts)
