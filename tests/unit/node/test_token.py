import os
import re
import stat
from pathlib import Path

import pytest

from ray_serve_cai import private_file
from ray_serve_cai.errors import TokenError, UsageError
from ray_serve_cai.node import token


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize(
    ("env", "expected"), [({}, None), ({"RSCAI_TOKEN": ""}, None), ({"RSCAI_TOKEN": " " + "a1" * 24 + "\n"}, "a1" * 24)]
)
def test_a_given_token(env: dict[str, str], expected: str | None) -> None:
    assert token.given(env) == expected


@pytest.mark.parametrize("value", ["short", "a" * 15, "a" * 20 + " b", "a" * 20 + "\r\nX: y", "é" * 20, "a-b" * 10])
def test_an_unusable_token_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(
        UsageError, match="RSCAI_TOKEN, or what its file holds, is unusable; use at least 16 letters and digits.*openssl rand -hex 24"
    ) as caught:
        token.given({"RSCAI_TOKEN": value})
    assert value not in str(caught.value)


def test_no_token_yet(tmp_path: Path) -> None:
    assert token.read(tmp_path) is None


def test_an_empty_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    assert token.read(tmp_path) is None


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_made_token_is_for_owner_and_group(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        made = token.make(tmp_path)
    finally:
        os.umask(before)
    assert re.fullmatch("[0-9a-f]{48}", made)
    assert mode(tmp_path / "token") == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["token"]
    assert token.read(tmp_path) == made
    assert token.given({"RSCAI_TOKEN": made}) == made


def test_a_token_is_made_once(tmp_path: Path) -> None:
    assert token.make(tmp_path) == token.make(tmp_path)


def test_two_clusters_have_two_tokens(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert token.make(tmp_path / "a") != token.make(tmp_path / "b")


def test_a_token_that_cannot_be_read(tmp_path: Path, without_rights_after: None) -> None:
    with pytest.raises(TokenError, match=rf"{tmp_path / 'token'} is not readable for uid {os.getuid()}; run all nodes"):
        token.read(tmp_path)


@pytest.fixture
def without_rights_after(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A token that was planted by root, with rights for nobody else, and then no rights for us."""
    private_file.write(tmp_path / "token", "a1" * 24, mode=0)
    request.getfixturevalue("without_rights")
