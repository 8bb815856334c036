"""One line changes, and comes back."""

from pathlib import Path

import pytest

from ray_serve_cai.upgrade import env_file

pytestmark = pytest.mark.issue(6)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "IMAGE=cai:b\n"),
        ("IMAGE=cai:a\n", "IMAGE=cai:b\n"),
        ("IMAGE=cai:a\nMODEL=demo\nENGINE_ARGS='{\"a\": 1}'\n", "IMAGE=cai:b\nMODEL=demo\nENGINE_ARGS='{\"a\": 1}'\n"),
        ("MODEL=demo\n  export IMAGE = 'x'", "MODEL=demo\nIMAGE=cai:b"),
        ("MODEL=demo", "MODEL=demo\nIMAGE=cai:b\n"),
        ("#IMAGE=cai:a\nBASE_IMAGE=debian\n", "#IMAGE=cai:a\nBASE_IMAGE=debian\nIMAGE=cai:b\n"),
    ],
)
def test_with_image(content: str, expected: str) -> None:
    assert env_file.with_image(content, "cai:b") == expected


def test_a_name_with_what_a_pattern_would_read_as_a_group() -> None:
    assert env_file.with_image("IMAGE=x", r"\1\g<0>") == r"IMAGE=\1\g<0>"


def test_there_and_back(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    assert env_file.read(file) is None
    env_file.replace(file, "IMAGE=cai:b\n")
    assert (env_file.read(file), file.stat().st_mode & 0o777) == ("IMAGE=cai:b\n", 0o644)
    file.chmod(0o600)
    env_file.replace(file, "IMAGE=cai:c\n")
    assert (env_file.read(file), file.stat().st_mode & 0o777) == ("IMAGE=cai:c\n", 0o600)
    env_file.replace(file, None)
    env_file.replace(file, None)
    assert list(tmp_path.iterdir()) == []
