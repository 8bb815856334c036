"""The bill of materials of a handmade root: what it lists, that it is valid CycloneDX 1.6, and that equal contents give equal files."""

from __future__ import annotations

import json
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from images import sbom

pytestmark = pytest.mark.issue(7)
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u13
Description: GNU C Library
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tini
Status: install ok installed
Architecture: amd64
Version: 0.19.0-1
"""
COPYRIGHT = (
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: Expat\n\nLicense: Expat\n words\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two Debian packages and a venv with three distributions."""
    root = tmp_path / "root"
    files = {
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n',
        "var/lib/dpkg/status": STATUS,
        "usr/share/doc/tini/copyright": COPYRIGHT,
    }
    for name, version, more in (
        ("Torch", "2.13.0+cpu", "License-Expression: BSD-3-Clause"),
        ("typing_extensions", "4.15.0", "License: PSF"),
        ("silent", "1", "Summary: says nothing"),
    ):
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{more}\n"
        files[f"venv/lib/python3.11/site-packages/{name}-{version}.dist-info/METADATA"] = metadata
        files[f"venv/lib/python3.11/site-packages/{name}-{version}.dist-info/RECORD"] = f"{name}-{version}.dist-info/METADATA,,\n"
    # As images/slim.sh lets a distribution be found under another name: it is no package.
    files["venv/lib/python3.11/site-packages/alias-1.dist-info/METADATA"] = "Metadata-Version: 2.4\nName: alias\nVersion: 1\n"
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def written(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    out.mkdir()
    options = {"--venv": root / "venv", "--root": root, "--name": "ray-serve-cai:vllm-cpu", "--version": "0.1.0", "--out": out}
    monkeypatch.setattr(sys, "argv", ["sbom.py", *(str(word) for pair in options.items() for word in pair)])
    sbom.main()
    return json.loads((out / "sbom.cdx.json").read_text()), (out / "licenses.txt").read_text()


def test_what_it_lists(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    document, licences = written(root, tmp_path / "out", monkeypatch)
    assert licences == (
        "deb  libc6 2.36-9+deb12u13: not stated\n"
        "deb  tini 0.19.0-1: Expat\n"
        "pypi Torch 2.13.0+cpu: BSD-3-Clause\n"
        "pypi silent 1: not stated\n"
        "pypi typing_extensions 4.15.0: PSF\n"
    )
    purls = {PackageURL.from_string(component["purl"]) for component in document["components"]}
    assert purls == {
        PackageURL("deb", "debian", "libc6", "2.36-9+deb12u13", {"arch": "amd64", "distro": "debian-12"}),
        PackageURL("deb", "debian", "tini", "0.19.0-1", {"arch": "amd64", "distro": "debian-12"}),
        PackageURL("pypi", None, "torch", "2.13.0+cpu"),
        PackageURL("pypi", None, "typing-extensions", "4.15.0"),
        PackageURL("pypi", None, "silent", "1"),
    }
    assert (document["metadata"]["component"]["name"], document["specVersion"]) == ("ray-serve-cai:vllm-cpu", "1.6")
    assert "timestamp" not in document["metadata"]


def test_it_is_valid_and_has_the_time_it_was_given(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    document, _ = written(root, tmp_path / "out", monkeypatch)
    assert document["metadata"]["timestamp"] == "2027-01-15T08:00:00+00:00"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None


def test_equal_contents_give_equal_files_and_others_give_others(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = (written(root, tmp_path / name, monkeypatch) for name in ("first", "again"))
    assert first == again
    (root / "var/lib/dpkg/status").write_text(STATUS.replace("0.19.0-1", "0.19.0-2"))
    other, _ = written(root, tmp_path / "other", monkeypatch)
    assert other["serialNumber"] != first[0]["serialNumber"]


def test_a_root_without_dpkg(tmp_path: Path) -> None:
    assert sbom.debian_parts(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "Apache-2.0"), ("License", "other")], "Apache-2.0"),
        ([("License", "MIT")], "MIT"),
        ([("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT License"),
        ([("License", "a text\nof lines"), ("Classifier", "License :: Public Domain")], "Public Domain"),
        ([("License", "Apache License\n  Version 2.0, January 2004")], "Apache License"),
        ([("Classifier", "Topic :: Software Development")], sbom.UNKNOWN),
    ],
    ids=["expression", "short", "classifier", "long text", "only a long text", "none"],
)
def test_what_a_distribution_says_of_its_licence(fields: list[tuple[str, str]], licence: str) -> None:
    metadata = Message()
    for key, value in fields:
        metadata[key] = value
    assert sbom.python_licence(metadata) == licence


def test_what_a_copyright_file_says() -> None:
    assert sbom.debian_licence("License: GPL-2+\n text\n\nLicense: Expat\nLicense: Expat\n") == "Expat AND GPL-2+"
    assert sbom.debian_licence("It was downloaded from somewhere.") == sbom.UNKNOWN


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("see `/usr/share/common-licenses/GPL-2'.", "GPL-2"),
        (
            "in /usr/share/common-licenses/LGPL-2.1.\nand /usr/share/common-licenses/GPL-3, or /usr/share/common-licenses/GPL-3.",
            "GPL-3 AND LGPL-2.1",
        ),
        ("License: Expat\n see /usr/share/common-licenses/GPL-2", "Expat"),
        ("License:\nsee /usr/share/common-licenses/Artistic", "Artistic"),
        ("all of /usr/share/common-licenses/", sbom.UNKNOWN),
    ],
    ids=["quoted", "several", "format goes first", "empty field", "directory"],
)
def test_a_copyright_file_of_the_older_kind(text: str, licence: str) -> None:
    assert sbom.debian_licence(text) == licence


@pytest.mark.parametrize(
    "licence", ["Apache-2.0", "apache-2.0", "MIT OR Apache-2.0", "MIT AND", "(", "MIT License AND GPL-2+", "é", sbom.UNKNOWN]
)
def test_whatever_a_licence_says_the_bill_is_valid(licence: str) -> None:
    made = sbom.bill([sbom.Part("pypi", "a", "1", licence)], "it", "1")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made) is None
    assert ("licenses" in json.loads(made)["components"][0]) == (licence != sbom.UNKNOWN)


def test_a_part_more_or_another_name_is_another_bill() -> None:
    parts = [sbom.Part("pypi", "a", "1"), sbom.Part("deb", "a", "1", architecture="amd64", distribution="debian")]
    made = [sbom.bill(parts, "it", "1"), sbom.bill(parts, "other", "1"), sbom.bill(parts, "it", "2"), sbom.bill(parts[:1], "it", "1")]
    assert made[0] == sbom.bill(parts, "it", "1")
    assert len({json.loads(text)["serialNumber"] for text in made}) == len(made)
