"""Write an image's bill of materials: sbom.cdx.json (CycloneDX 1.6) and licenses.txt, in a build stage.

    python3 sbom.py --venv /opt/ray-serve-cai/venv --root / --name ray-serve-cai:vllm-cpu --version 0.1.0 --out /out

Equal contents give equal files: the serial number is derived from them, and a time is written only where SOURCE_DATE_EPOCH gives one
(https://reproducible-builds.org/specs/source-date-epoch/), which an image's build does not: a commit alone changes no bill.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

NAMESPACE = uuid.UUID("6f0c1f5e-53f5-5b1b-9f26-6d8f7a5b8e0d")
UNKNOWN = "not stated"
COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z][A-Za-z0-9.+-]*)")
CLASSIFIER = re.compile(r"^License :: (?:OSI Approved :: )?(.+)$")


@dataclass(frozen=True, order=True)
class Part:
    """One thing in the image. ``kind`` is pypi or deb; ``licence`` is what the thing says of itself, an SPDX expression or a name."""

    kind: str
    name: str
    version: str
    licence: str = UNKNOWN
    architecture: str = ""
    distribution: str = ""
    release: str = ""

    @property
    def purl(self) -> PackageURL:
        """https://github.com/package-url/purl-spec"""
        if self.kind == "deb":
            qualifiers = {"arch": self.architecture, "distro": f"{self.distribution}-{self.release}" if self.release else ""}
            return PackageURL("deb", self.distribution, self.name, self.version, qualifiers)
        return PackageURL("pypi", None, self.name.lower().replace("_", "-"), self.version)


def python_parts(site: Path) -> list[Part]:
    """The Python distributions below a site-packages directory; one without a list of files only stands for another's name."""
    return sorted({_python_part(found) for found in distributions(path=[str(site)]) if found.metadata["Name"] and found.files is not None})


def python_licence(metadata: Message) -> str:
    """What a distribution says of its licence: PEP 639's expression, else a short License field, else classifiers."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) <= 60 and text.upper() != "UNKNOWN":
        return text
    named = [match[1] for line in metadata.get_all("Classifier") or [] if (match := CLASSIFIER.match(str(line)))]
    return " AND ".join(sorted(named)) or (text.splitlines()[0].strip()[:60] if text else UNKNOWN)


def debian_parts(root: Path) -> list[Part]:
    """The Debian or Ubuntu packages that are installed in a root file system."""
    status = root / "var/lib/dpkg/status"
    if not status.exists():
        return []
    release = {key: value.strip('"') for key, value in _fields((root / "etc/os-release").read_text().splitlines(), "=")}
    return sorted(_debian_parts(status.read_text().split("\n\n"), root, release["ID"], release.get("VERSION_ID", "")))


def debian_licence(copyright_file: str) -> str:
    """The licences that a copyright file names, in the machine-readable format or by the files that all Debian systems have.

    The file itself stays in the image. https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
    """
    named = {line.partition(":")[2].strip() for line in copyright_file.splitlines() if line.startswith("License:")} - {""}
    return " AND ".join(sorted(named or {name.rstrip(".-") for name in COMMON.findall(copyright_file)})) or UNKNOWN


def bill(parts: Sequence[Part], name: str, version: str, epoch: str | None = None) -> str:
    """The CycloneDX document; ``epoch`` is its time in seconds since 1970."""
    made = Bom(serial_number=uuid.uuid5(NAMESPACE, json.dumps([name, version, *(str(part) for part in parts)])))
    made.metadata.component = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=f"{name}@{version}")
    licences = LicenseFactory()
    for part in parts:
        licence = [] if part.licence == UNKNOWN else [licences.make_from_string(part.licence)]
        purl = part.purl
        made.components.add(
            Component(name=part.name, version=part.version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl), licenses=licence)
        )
    made.register_dependency(made.metadata.component, made.components)
    document = json.loads(JsonV1Dot6(made).output_as_string())
    document["metadata"].pop("timestamp", None)
    if epoch is not None:
        document["metadata"]["timestamp"] = datetime.fromtimestamp(int(epoch), timezone.utc).isoformat()
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def licences(parts: Iterable[Part]) -> str:
    """One line for each part: name, version, licence."""
    return "".join(f"{part.kind:5}{part.name} {part.version}: {part.licence}\n" for part in parts)


def _python_part(found: Distribution) -> Part:
    return Part("pypi", str(found.metadata["Name"]), found.version, python_licence(found.metadata))  # type: ignore[arg-type]


def _debian_parts(stanzas: Iterable[str], root: Path, distribution: str, release: str) -> Iterator[Part]:
    for stanza in stanzas:
        fields = dict(_fields(stanza.splitlines(), ":"))
        if fields.get("Status", "").endswith(" installed"):
            file = root / "usr/share/doc" / fields["Package"] / "copyright"
            licence = debian_licence(file.read_text(errors="replace")) if file.exists() else UNKNOWN
            yield Part("deb", fields["Package"], fields["Version"], licence, fields.get("Architecture", ""), distribution, release)


def _fields(lines: Iterable[str], separator: str) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, found, value = line.partition(separator)
        if found and not key.startswith(" "):
            yield key, value.strip()


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, meaning in {"venv": "the virtual environment", "root": "the root file system", "out": "where the files go"}.items():
        parser.add_argument(f"--{option}", type=Path, required=True, help=meaning)
    parser.add_argument("--name", required=True, help="the image's name")
    parser.add_argument("--version", required=True, help="the image's version")
    given = parser.parse_args()
    (site,) = given.venv.glob("lib/python3.*/site-packages")
    parts = [*debian_parts(given.root), *python_parts(site)]
    (given.out / "sbom.cdx.json").write_text(bill(parts, given.name, given.version, os.environ.get("SOURCE_DATE_EPOCH")))
    (given.out / "licenses.txt").write_text(licences(parts))


if __name__ == "__main__":
    main()
