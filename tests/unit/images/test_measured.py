"""The file of measurements, and the page that is made of it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from images import measured
from images.errors import ContradictionError, NoImageError
from images.inside import parse
from images.measured import Image, Layer, Package, Sizes
from images.sizes_page import page
from images.tables import command
from tests.unit.images.conftest import answer

pytestmark = pytest.mark.issue(7)
BASE = Layer(digest="sha256:" + "a" * 64, size=74_000_000, files=3249, holds=[("usr/lib", 40_000_000)], command="")
EMPTY = Layer(digest="sha256:" + "b" * 64, size=0, files=0, holds=[], command="WORKDIR /home")
TORCH = Layer(
    digest="sha256:" + "c" * 64, size=641_600_000, files=10_702, holds=[("torch", 526_100_000)], command="COPY /layer/ / # buildkit"
)
GATEWAY = Layer(digest="sha256:" + "d" * 64, size=98_000_000, files=6606, holds=[("nbclassic", 40_000_000)], command="COPY /layer/ /")


def image(*layers: Layer, **changes: object) -> Image:
    told = {
        "measured": datetime.date(2026, 11, 26),
        "id": "sha256:abc",
        "size": 2_092_102_837,
        "zstd": 587_000_000,
        "gzip": 658_400_000,
        "distributions": 172,
        "layers": list(layers),
        "packages": [Package(name="torch", version="2.13.0+cpu", size=529_700_000)],
    }
    return Image.model_validate(told | changes)


SIZES = Sizes(images={"vllm-cpu": image(BASE, EMPTY, TORCH), "vllm-cpu-cai": image(BASE, EMPTY, TORCH, GATEWAY, size=2_190_000_000)})


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text(SIZES.as_text())
    assert measured.read(tmp_path / "sizes.json") == SIZES


def test_an_image_is_measured_anew_and_others_keep_what_they_have() -> None:
    anew = SIZES.with_image("vllm-cpu", image(BASE, size=1)).with_image("sglang-cpu", image(BASE))
    assert (anew.images["vllm-cpu"].size, anew.images["vllm-cpu-cai"]) == (1, SIZES.images["vllm-cpu-cai"])
    assert list(anew.images) == ["vllm-cpu", "vllm-cpu-cai", "sglang-cpu"]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NoImageError, match="cannot be read .*make sizes"):
        measured.read(tmp_path / "none.json")
    (tmp_path / "sizes.json").write_text('{"images": {"vllm-cpu": {}}}')
    with pytest.raises(ContradictionError, match="is no file of measurements"):
        measured.read(tmp_path / "sizes.json")


def test_the_heaviest_packages() -> None:
    told = parse("it", answer(distributions={"a": "1", "b": "2", "c": "3"}, sizes={"a": 1, "b": 3, "c": 1}))
    assert [(one.name, one.version, one.size) for one in measured.packages(told)] == [("b", "2", 3), ("a", "1", 1), ("c", "3", 1)]


def test_the_page() -> None:
    lines = page(SIZES, ["sglang-cpu", "vllm-cpu", "vllm-cpu-cai"]).splitlines()
    assert "| `vllm-cpu` | 2,092.1 MB | 587.0 MB | 658.4 MB |  | 2026-11-26 |" in lines
    assert "| `vllm-cpu-cai` | 2,190.0 MB | 587.0 MB | 658.4 MB | 98.0 MB | 2026-11-26 |" in lines
    assert "All of them on one machine take 813.6 MB: equal layers are stored once." in lines
    assert "| `aaaaaaaaaaaa` | 74.0 MB | 3,249 | usr/lib 40.0 MB | `the base image` |" in lines
    assert "| `cccccccccccc` | 641.6 MB | 10,702 | torch 526.1 MB | `COPY /layer/ /` |" in lines
    assert "| torch | 2.13.0+cpu | 529.7 MB |" in lines
    assert not [line for line in lines if "WORKDIR" in line or "sglang" in line]


def test_a_runtime_whose_engine_image_was_not_measured() -> None:
    alone = Sizes(images={"vllm-cpu-cai": SIZES.images["vllm-cpu-cai"]})
    assert "| `vllm-cpu-cai` | 2,190.0 MB | 587.0 MB | 658.4 MB |  | 2026-11-26 |" in page(alone, ["vllm-cpu", "vllm-cpu-cai"])


def test_nothing_was_measured() -> None:
    assert page(Sizes(), ["vllm-cpu"]).endswith("No image was measured yet.\n")


@pytest.mark.parametrize(
    ("made_by", "shown"),
    [
        ("RUN /bin/sh -c apt-get update # buildkit", "apt-get update"),
        ("COPY /out/ / # buildkit", "COPY /out/ /"),
        ("", "the base image"),
    ],
)
def test_commands(made_by: str, shown: str) -> None:
    assert command(made_by) == shown
