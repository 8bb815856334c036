"""Tags from facts, and what of an image's words is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images.errors import ContradictionError
from images.inside import Facts
from images.tags import check, contradictions, moment, tags
from ray_serve_cai.node.manifest import Manifest
from tests.unit.images.conftest import CREATED, LABELS, MANIFEST, REVISION

pytestmark = pytest.mark.issue(7)
CPU = Facts("0.1.0", "vllm", "0.32.0", "2.60.0", "2.13.0+cpu", None, "3.11.2", "engine")
CUDA = replace(CPU, torch="2.13.0", cuda="13.0")
SAID = Manifest(**MANIFEST)


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (CPU, ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu", "sha-0123456789ab-vllm-cpu", "20261126-vllm-cpu"]),
        (CUDA, ["0.1.0-vllm0.32.0-cu130", "0.1-vllm", "sha-0123456789ab-vllm-cuda", "20261126-vllm-cuda"]),
        (
            replace(CPU, engine="sglang", engine_version="0.5.23", variant="cai"),
            ["0.1.0-sglang0.5.23-cpu-cai", "0.1-sglang-cpu-cai", "sha-0123456789ab-sglang-cpu-cai", "20261126-sglang-cpu-cai"],
        ),
        (
            replace(CUDA, variant="cai", cuda="12.9"),
            ["0.1.0-vllm0.32.0-cu129-cai", "0.1-vllm-cai", "sha-0123456789ab-vllm-cuda-cai", "20261126-vllm-cuda-cai"],
        ),
        (
            replace(CPU, engine_version="0.32.0+cpu"),
            ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu", "sha-0123456789ab-vllm-cpu", "20261126-vllm-cpu"],
        ),
        (replace(CPU, package="0.2.0rc1"), ["0.2.0rc1-vllm0.32.0-cpu", "sha-0123456789ab-vllm-cpu", "20261126-vllm-cpu"]),
        (replace(CPU, package="1.2.3+site.4"), ["1.2.3_site.4-vllm0.32.0-cpu", "sha-0123456789ab-vllm-cpu", "20261126-vllm-cpu"]),
    ],
    ids=["cpu", "cuda", "cpu cai", "cuda cai", "local engine version", "before a release", "local version"],
)
def test_tags(facts: Facts, wanted: list[str]) -> None:
    assert tags(facts, REVISION, CREATED) == wanted


def test_without_a_revision_there_is_no_tag_of_one() -> None:
    assert tags(CPU, "", CREATED) == ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu", "20261126-vllm-cpu"]


def test_an_image_that_says_what_is_so() -> None:
    assert contradictions(CPU, LABELS, SAID, CREATED) == []
    check("it", CPU, LABELS | {"org.opencontainers.image.revision": ""}, SAID, "2026-11-26T05:14:54.000000000Z")


@pytest.mark.parametrize("key", sorted(key for key in LABELS if key.startswith("io.")))
def test_each_label_is_compared(key: str) -> None:
    (fault,) = contradictions(CPU, LABELS | {key: "wrong"}, SAID, CREATED)
    assert fault == f"label {key} is 'wrong' and {LABELS[key]!r} is what is installed"
    (fault,) = contradictions(CPU, {name: value for name, value in LABELS.items() if name != key}, SAID, CREATED)
    assert fault == f"label {key} is nothing and {LABELS[key]!r} is what is installed"


@pytest.mark.parametrize("key", sorted(MANIFEST.keys() - {"schema", "build_id", "protocol"}))
def test_each_key_of_the_manifest_is_compared(key: str) -> None:
    (fault,) = contradictions(CPU, LABELS, replace(SAID, **{key: "wrong"}), CREATED)
    assert fault.startswith(f"manifest key {key} is 'wrong' and ")
    assert fault.endswith(" is what is installed")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"io.ray-serve-cai.cuda.version": "13.0"}, "label io.ray-serve-cai.cuda.version is '13.0' and nothing is what is installed"),
        ({"org.opencontainers.image.version": "0.2.0"}, "image.version is '0.2.0' and '0.1.0' is what is installed"),
        ({"org.opencontainers.image.created": "yesterday"}, f"created is 'yesterday' and the image was created at '{CREATED}'"),
        ({"org.opencontainers.image.created": ""}, f"created is '' and the image was created at '{CREATED}'"),
        ({"org.opencontainers.image.revision": "main"}, "revision is 'main', and a commit has 40 hexadecimal digits"),
    ],
)
def test_other_labels_that_lie(labels: dict[str, str], words: str) -> None:
    (fault,) = contradictions(CPU, LABELS | labels, SAID, CREATED)
    assert fault.endswith(words)


def test_a_runtime_of_cloudera_says_its_kernel_and_cuda() -> None:
    runtime = replace(CUDA, variant="cai")
    said = replace(SAID, torch="2.13.0", cuda="13.0", device="cuda", variant="cai", image="vllm-cuda-cai")
    own = {"image": "vllm-cuda-cai", "variant": "cai", "device": "cuda", "torch.version": "2.13.0", "cuda.version": "13.0"}
    labels = LABELS | {f"io.ray-serve-cai.{key}": value for key, value in own.items()}
    labels["com.cloudera.ml.runtime.kernel"] = "Python 3.12"
    assert contradictions(runtime, labels, said, CREATED) == [
        "label com.cloudera.ml.runtime.kernel is 'Python 3.12' and 'Python 3.11' is what is installed",
        "label com.cloudera.ml.runtime.cuda-version is nothing and '13.0' is what is installed",
    ]


def test_all_faults_stand_in_one_line() -> None:
    labels = LABELS | {"io.ray-serve-cai.ray.version": "2.59.0"}
    with pytest.raises(ContradictionError) as error:
        check("it", CPU, labels, replace(SAID, ray="2.58.0"), CREATED)
    assert str(error.value) == (
        "it: label io.ray-serve-cai.ray.version is '2.59.0' and '2.60.0' is what is installed; "
        "manifest key ray is '2.58.0' and '2.60.0' is what is installed. Build it again: images/build.sh vllm-cpu"
    )


def test_moments_are_equal_however_they_are_written() -> None:
    assert moment("2026-11-26T05:14:54.123456789Z") == moment("2026-11-26T06:14:54+01:00")
