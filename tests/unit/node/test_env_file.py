import io
import sys
from pathlib import Path

import pytest

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import env_file


def test_dockers_format(tmp_path: Path) -> None:
    file = tmp_path / "worker.env"
    file.write_text('# a comment\n\nA=1\nB = two words \nC="quoted"\nINHERITED\nMISSING\nEMPTY=\nURL=http://x/?a=b\n')
    assert env_file.read(file, {"INHERITED": "yes", "OTHER": "no"}) == {
        "A": "1",
        "B": " two words ",
        "C": '"quoted"',
        "INHERITED": "yes",
        "EMPTY": "",
        "URL": "http://x/?a=b",
    }


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("A=1\n"))
    assert env_file.read(Path("-"), {}) == {"A": "1"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory; give a file that is here, or - for"),
        (b"\xff", "it is no text"),
        (b"A=1\nb c=2\n", "line 2: 'b c=2' is no"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "worker.env"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        env_file.read(file, {})
