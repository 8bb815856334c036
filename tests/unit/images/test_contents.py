"""What a layer mostly holds."""

from __future__ import annotations

import io

import pytest

from images import archive
from images.contents import Contents, contents, thing
from tests.images.handmade import directory, file, image, link

pytestmark = pytest.mark.issue(7)
SITE = "opt/ray-serve-cai/venv/lib/python3.11/site-packages"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{SITE}/torch/lib/libtorch.so", "torch"),
        (f"{SITE}/torch-2.13.0+cpu.dist-info/RECORD", "torch"),
        (f"{SITE}/numpy.libs/libblas.so", "numpy"),
        (f"{SITE}/nvidia/cublas/lib/libcublas.so.13", "nvidia/cublas"),
        (f"{SITE}/nvidia/__init__.py", "nvidia"),
        (f"{SITE}/six.py", "six.py"),
        ("opt/ray-serve-cai/venv/bin/ray", "opt/ray-serve-cai/venv"),
        ("opt/ray-serve-cai/models/demo/config.json", "opt/ray-serve-cai/models/demo"),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib"),
        ("etc", "etc"),
    ],
)
def test_thing(path: str, name: str) -> None:
    assert thing(path) == name


def test_a_layer_is_added_up() -> None:
    layer = [
        directory("etc"),
        file("etc/small", b"1"),
        link("etc/link", "small"),
        file(f"{SITE}/torch/a", b"1" * 700),
        file(f"{SITE}/torch/b", b"1" * 100),
        file(f"{SITE}/numpy/c", b"1" * 199),
    ]
    saved = archive.read(io.BytesIO(image(layer, [])), contents)
    assert [one.value for one in saved.layers] == [Contents(1000, 4, [("torch", 800), ("numpy", 199)]), Contents(0, 0, [])]
