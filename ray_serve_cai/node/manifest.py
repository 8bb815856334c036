"""What the image says of itself: /opt/ray-serve-cai/manifest.json, written when it was built."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ray_serve_cai.errors import ConfigError

PATH = Path("/opt/ray-serve-cai/manifest.json")
PROTOCOL = 1
"""Changes when nodes of an older build could not work with this one."""


@dataclass(frozen=True)
class Manifest:
    """The image's contents. ``device`` is cpu or cuda; path and keys are fixed."""

    schema: int
    build_id: str
    protocol: int
    ray: str
    python: str
    engine: str
    engine_version: str
    device: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def read(path: Path = PATH) -> Manifest:
    """Read the image's manifest; outside an image, describe the running Python environment instead.

    Raises:
        ConfigError: the file is there but is not a manifest.
    """
    try:
        return Manifest(**json.loads(path.read_text()))
    except FileNotFoundError:
        return _environment()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no image manifest ({error}); rebuild the image.") from error


def of_another(text: str, where: str) -> Manifest:
    """The manifest of an image of any release; what this release does not know is left out.

    Raises:
        ConfigError: it is none.
    """
    try:
        told = json.loads(text)
        return Manifest(**{field.name: told[field.name] for field in fields(Manifest)})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{where} has no manifest of ray-serve-cai ({error}); use an image of this project.") from error


def _environment() -> Manifest:
    return Manifest(
        schema=1,
        build_id="source",
        protocol=PROTOCOL,
        ray=_installed("ray"),
        python=platform.python_version(),
        engine="vllm",
        engine_version=_installed("vllm"),
        device="cpu",
    )


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
