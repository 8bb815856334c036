"""A version's section, and a tag that fits."""

from __future__ import annotations

import pytest

from images import changelog
from images.errors import ContradictionError

pytestmark = pytest.mark.issue(8)
TEXT = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- b\n\n## [0.1.0] - 2026-11-01\n\n- a\n"


@pytest.mark.parametrize(("version", "words"), [("0.2.0", "### Added\n\n- b\n"), ("0.1.0", "- a\n")])
def test_a_section(version: str, words: str) -> None:
    assert changelog.section(TEXT, version) == words


@pytest.mark.parametrize(("version", "words"), [("0.3.0", "has no section"), ("0.2", "has no section"), ("Unreleased", "says nothing")])
def test_no_section(version: str, words: str) -> None:
    with pytest.raises(ContradictionError, match=words):
        changelog.section(TEXT, version)


def test_what_is_still_to_be_released() -> None:
    text = TEXT.replace("- a\n", "To be released as 0.1.0.\n\n- a\n")
    assert changelog.section(text, "0.2.0")
    with pytest.raises(ContradictionError, match=r"says 'To be released as 0.1.0.' under \[0.1.0\]; take that line out"):
        changelog.section(text, "0.1.0")


@pytest.mark.parametrize("version", ["0.1.0", "1.20.300", "0.1.0rc1"])
def test_a_tag_that_fits(version: str) -> None:
    assert changelog.version_of(f"v{version}", f'[project]\nversion = "{version}"\n') == version


@pytest.mark.parametrize(
    ("tag", "words"), [("0.1.0", "names no version"), ("v0.1", "names no version"), ("v0.2.0", "pyproject.toml has version 0.1.0")]
)
def test_a_tag_that_does_not(tag: str, words: str) -> None:
    with pytest.raises(ContradictionError, match=words):
        changelog.version_of(tag, '[project]\nversion = "0.1.0"\n')


def test_as_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["changelog", "9.9.9"])
    with pytest.raises(ContradictionError):
        changelog.run(["9.9.9"])
    with pytest.raises(ContradictionError, match="names no version"):
        changelog.run(["--tag", "x"])
