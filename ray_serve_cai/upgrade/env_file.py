"""The line ``IMAGE=`` of Compose's environment file, which a later ``docker compose up`` reads."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from ray_serve_cai import private_file

_LINE = re.compile(r"^[ \t]*(?:export[ \t]+)?IMAGE[ \t]*=.*$", re.MULTILINE)
_NEW_MODE = 0o644


def with_image(content: str, image: str) -> str:
    """The file's content with this image; everything else stays as it is."""
    line = f"IMAGE={image}"
    if _LINE.search(content):
        return _LINE.sub(lambda _: line, content)
    return content + ("" if not content or content.endswith("\n") else "\n") + line + "\n"


def read(path: Path) -> str | None:
    """Its content; None where there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def replace(path: Path, content: str | None) -> None:
    """Make the file hold this, in one step and with the rights it had; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _NEW_MODE
    private_file.write(path, content, mode)
