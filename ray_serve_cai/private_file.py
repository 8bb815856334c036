"""Files that only this user may read: tokens, and configurations, which may hold keys."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: str, mode: int = 0o600) -> None:
    """Replace the file in one step; nobody else could read it at any moment."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    os.replace(temporary, path)
