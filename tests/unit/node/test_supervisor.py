"""The supervisor's pure parts; its life is tested on the real image."""

import os
from pathlib import Path

import pytest

from ray_serve_cai.errors import RayServeCaiError, ResourceError
from ray_serve_cai.node.supervisor import ChildFailed, writable


def test_the_first_writable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable(tmp_path / "file" / "below", tmp_path / "new" / "one", tmp_path) == tmp_path / "new" / "one"
    assert (tmp_path / "new" / "one").is_dir()


def test_a_directory_of_somebody_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert writable(tmp_path, tmp_path / "mine") == tmp_path / "mine"


def test_no_writable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=rf"none of {tmp_path}/file/a, {tmp_path}/file/b is writable; mount a tmpfs"):
        writable(tmp_path / "file" / "a", tmp_path / "file" / "b")


def test_the_launcher_leaves_with_its_childs_code() -> None:
    error: RayServeCaiError = ChildFailed(71, "why")
    assert (error.exit_code, str(error)) == (71, "why")
    assert RayServeCaiError.exit_code == 70
