import json
from pathlib import Path

from ray_serve_cai import private_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("an older and longer text, that everybody may read")
    private_file.write(file, json.dumps({"a": 1}))
    assert json.loads(file.read_text()) == {"a": 1}
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_file_replaces_what_was_left_over(tmp_path: Path) -> None:
    file = tmp_path / "ray-token"
    file.with_suffix(".new").write_text("half of")
    file.with_suffix(".new").chmod(0o666)
    file.write_text("old")
    private_file.write(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["ray-token"]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "ray-token.new").symlink_to(tmp_path / "target")
    (tmp_path / "ray-token").symlink_to(tmp_path / "target")
    private_file.write(tmp_path / "ray-token", "secret")
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "ray-token").is_symlink()
