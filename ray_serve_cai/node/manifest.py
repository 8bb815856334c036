"""What the image says of itself: /opt/ray-serve-cai/manifest.json, written when it was built."""

from __future__ import annotations

import json
import platform
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ray_serve_cai.errors import ConfigError

PATH = Path("/opt/ray-serve-cai/manifest.json")
PROTOCOL = 1
"""Changes when nodes of an older build could not work with this one."""


@dataclass(frozen=True)
class Manifest:
    """The image's contents; path and keys are fixed.

    ``device`` is cpu or cuda, ``cuda`` the toolkit's major and minor or None, ``variant`` engine or cai, ``package`` the version of
    ray-serve-cai, ``image`` a name in images/versions.json. Images of the first releases lack what has a default here.
    """

    schema: int
    build_id: str
    protocol: int
    ray: str
    python: str
    engine: str
    engine_version: str
    device: str
    torch: str = "none"
    cuda: str | None = None
    variant: str = "engine"
    package: str = "none"
    image: str = "none"

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
        wanted = (field.name for field in fields(Manifest) if field.default is MISSING or field.name in told)
        return Manifest(**{name: told[name] for name in wanted})
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
        torch=_installed("torch"),
        package=_installed("ray-serve-cai"),
    )


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
