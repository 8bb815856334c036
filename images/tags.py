"""The tags of an image, from what is in it; and what in its labels or manifest is not so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from packaging.version import Version

from images.errors import ContradictionError
from images.inside import Facts
from ray_serve_cai.node.manifest import Manifest

LABEL = "io.ray-serve-cai."
OCI = "org.opencontainers.image."
RUNTIME = "com.cloudera.ml.runtime."
REVISION = OCI + "revision"
CREATED = OCI + "created"
COMMIT = re.compile(r"[0-9a-f]{40}")


def tags(facts: Facts, revision: str, created: str) -> list[str]:
    """All tags of an image, the most exact first; ``created`` is RFC 3339.

    ``0.1.0-vllm0.32.0-cu130``, ``0.1-vllm``, ``sha-0123456789ab-vllm-cuda``, ``20261126-vllm-cuda``; with the device on CPUs,
    and with the variant. An image that was built outside a checkout has no revision, and no tag of one. What is before a release
    does not get the tag that moves with releases.
    """
    version = Version(facts.package)
    variant = "" if facts.variant == "engine" else f"-{facts.variant}"
    device = f"cu{facts.cuda.replace('.', '')}" if facts.cuda else "cpu"
    made = [f"{version}-{facts.engine}{Version(facts.engine_version).public}-{device}{variant}".replace("+", "_")]
    if not version.is_prerelease and not version.local:
        made.append(f"{version.major}.{version.minor}-{facts.engine}{'' if facts.cuda else '-cpu'}{variant}")
    if revision:
        made.append(f"sha-{revision[:12]}-{facts.image}")
    made.append(f"{moment(created):%Y%m%d}-{facts.image}")
    return made


def contradictions(facts: Facts, labels: Mapping[str, str], manifest: Manifest, created: str) -> list[str]:
    """Each label and each key of the manifest that says something else than what is installed, with both."""
    minor = ".".join(facts.python.split(".")[:2])
    installed = {
        "image": facts.image,
        "variant": facts.variant,
        "engine": facts.engine,
        "engine_version": facts.engine_version,
        "ray": facts.ray,
        "torch": facts.torch,
        "cuda": facts.cuda,
        "python": facts.python,
        "device": facts.device,
        "package": facts.package,
    }
    wanted = {LABEL + key: installed[key] for key in ("image", "variant", "engine", "device")}
    wanted |= {LABEL + f"{key}.version": installed[key] for key in ("ray", "torch", "cuda")}
    wanted |= {LABEL + "engine.version": facts.engine_version, LABEL + "python.version": minor, OCI + "version": facts.package}
    if facts.variant == "cai":
        wanted |= {RUNTIME + "kernel": f"Python {minor}", RUNTIME + "cuda-version": facts.cuda}
    found = [_different(f"label {key}", labels.get(key), value) for key, value in wanted.items()]
    found += [_different(f"manifest key {key}", getattr(manifest, key), value) for key, value in installed.items()]
    found.append(_time(labels.get(CREATED), created))
    revision = labels.get(REVISION)
    if revision is None or (revision and not COMMIT.fullmatch(revision)):
        found.append(f"label {REVISION} is {revision!r}, and a commit has 40 hexadecimal digits")
    return [fault for fault in found if fault]


def check(image: str, facts: Facts, labels: Mapping[str, str], manifest: Manifest, created: str) -> None:
    """Refuse an image that says of itself what is not so.

    Raises:
        ContradictionError: all of it in one line.
    """
    if faults := contradictions(facts, labels, manifest, created):
        raise ContradictionError(f"{image}: {'; '.join(faults)}. Build it again: images/build.sh {facts.image}")


def moment(text: str) -> datetime:
    """RFC 3339, with nanoseconds as Docker writes it or without."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))


def _different(where: str, told: str | None, installed: str | None) -> str:
    if told == installed:
        return ""
    return f"{where} is {_shown(told)} and {_shown(installed)} is what is installed"


def _shown(value: str | None) -> str:
    return "nothing" if value is None else repr(value)


def _time(told: str | None, created: str) -> str:
    try:
        if told and moment(told) == moment(created):
            return ""
    except ValueError:
        pass
    return f"label {CREATED} is {_shown(told)} and the image was created at {created!r}"
