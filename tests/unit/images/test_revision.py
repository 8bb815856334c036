"""The build id of a commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images import revision
from images.manifest import build_id, inputs

pytestmark = pytest.mark.issue(7)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit and a file that is not in it."""
    for file in ("ray_serve_cai/cli.py", "images/locks/vllm-cpu/torch.txt", "images/locks/sglang-cpu/torch.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_the_build_id_of_a_commit_is_that_of_its_files(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    committed = build_id(inputs(checkout, "vllm-cpu"))
    (checkout / "ray_serve_cai/more.py").write_text("not committed")
    assert revision.build_id_at(commit, "vllm-cpu", checkout) == committed
    assert revision.build_id_at(commit, "vllm-cpu-cai", checkout) == committed
    assert revision.build_id_at(commit, "sglang-cpu", checkout) != committed
    assert build_id(inputs(checkout, "vllm-cpu")) != committed


def test_a_commit_that_is_not_here(checkout: Path) -> None:
    assert revision.build_id_at(COMMIT, "vllm-cpu", checkout) is None


def test_no_checkout(tmp_path: Path) -> None:
    assert revision.build_id_at(COMMIT, "vllm-cpu", tmp_path) is None


@pytest.mark.parametrize(
    ("commit", "made", "words"),
    [
        ("", None, "was built outside a checkout"),
        (COMMIT, None, ""),
        (COMMIT, "same", ""),
        (COMMIT, "other", "it has build id same and commit 0123456789ab gives other"),
    ],
)
def test_doubt(commit: str, made: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "build_id_at", lambda commit, image: made)
    told = revision.doubt(commit, "it", "same")
    assert words in told
    assert bool(told) == bool(words)
