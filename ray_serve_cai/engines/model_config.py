"""What a model's own ``config.json`` says, where its files are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(model: str) -> dict[str, Any] | None:
    """The document, None where there is none: the model is an id of the hub, or has another format."""
    try:
        document = json.loads((Path(model) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
