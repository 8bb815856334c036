"""The file in which workers find their head."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.cai import rendezvous
from ray_serve_cai.cai.rendezvous import Record

pytestmark = pytest.mark.issue(9)
HEAD = Record("10.0.0.1:6379", "s1", {"ray": "2.60.0"})


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = rendezvous.place(tmp_path / "not there yet", "m")
    assert rendezvous.read(file) is None
    rendezvous.write(file, HEAD)
    assert rendezvous.read(file) == HEAD
    assert [one.name for one in file.parent.iterdir()] == ["m.address.json"]  # nothing half-written is left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"address": "a:1"}',
        '{"address": "no address/", "session": "s", "versions": {}}',
        '{"address": 1, "session": 2, "versions": 3}',
    ],
)
def test_what_cannot_be_used_is_waited_over(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "m.address.json"
    file.write_text(text)
    assert rendezvous.read(file) is None
    assert "waiting for the head to write it anew" in caplog.text


@given(st.binary(max_size=200))
def test_nothing_in_the_file_ends_a_worker(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("project") / "m.address.json"
    file.write_bytes(content)
    assert rendezvous.read(file) is None


def test_a_head_takes_back_only_its_own(tmp_path: Path) -> None:
    file = rendezvous.place(tmp_path, "m")
    rendezvous.write(file, HEAD)
    rendezvous.withdraw(file, "another session")
    assert rendezvous.read(file) == HEAD
    rendezvous.withdraw(file, "s1")
    assert not file.exists()
    rendezvous.withdraw(file, "s1")
