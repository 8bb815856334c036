"""What the runtime catalog of a workspace is told of an image: by the API, or by a file that an administrator has the workspace read.

Facts: Cloudera's documentation, Adding ML Runtimes using Runtime Repo files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_serve_cai.errors import UsageError

PREFIX = "com.cloudera.ml.runtime."
TEXTS = ("editor", "edition", "description", "kernel", "full-version", "short-version", "git-hash")
NUMBERS = ("runtime-metadata-version", "maintenance-version", "gbn")
OPTIONAL = ("cuda-version",)


def repository(image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The file of one image, from the image's own labels.

    Raises:
        UsageError: it is no runtime.
    """
    if missing := [name for name in (*TEXTS, *NUMBERS) if PREFIX + name not in labels]:
        raise UsageError(f"the image {image} has no label {PREFIX}{missing[0]}; use one whose name ends with -cai.")
    runtime: dict[str, Any] = {"image_identifier": image}
    runtime |= {name.replace("-", "_"): labels[PREFIX + name] for name in (*TEXTS, *OPTIONAL) if PREFIX + name in labels}
    runtime |= {name.replace("-", "_"): int(labels[PREFIX + name]) for name in NUMBERS}
    return {"assembly_metadata_version": 1, "runtimes": [runtime]}
