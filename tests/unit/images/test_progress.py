"""What is said while images are built; logs/built.txt is a build of two images with BuildKit's steps and the first line of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.matrix import ROOT
from images.progress import PHASES, progress

pytestmark = pytest.mark.issue(7)
BUILT = (Path(__file__).parent / "logs/built.txt").read_text().splitlines()


def test_a_build_of_two_images() -> None:
    assert list(progress(BUILT, "vllm-cuda")) == [
        "package: 1 s",
        "package: 1 s",
        "torch (vllm-cuda) ...",
        "engine (vllm-cuda) ...",
        "notebook gateway (vllm-cuda) ...",
        "Ray (vllm-cuda) ...",
        "Ray (vllm-cuda): 19 s",
        "notebook gateway (vllm-cuda): 23 s",
        "torch (vllm-cuda): 76 s",
        "engine (vllm-cuda): 102 s",
        "Cloudera AI runtime (vllm-cuda-cai): 5 s",
        "Cloudera AI runtime (vllm-cuda-cai) ...",
        "imports and manifest (vllm-cuda) ...",
        "imports and manifest (vllm-cuda): 13 s",
        "Cloudera AI runtime (vllm-cuda-cai): 11 s",
        "imports and manifest (vllm-cuda-cai) ...",
        "imports and manifest (vllm-cuda-cai): 14 s",
        "bill of materials (vllm-cuda-cai): 1 s",
        "writing the image (vllm-cuda): 12 s",
        "writing the image (vllm-cuda-cai): 5 s",
    ]


def test_what_was_kept_is_not_said() -> None:
    kept = ["#5 [tools 1/2] RUN apt-get update\n", "#5 CACHED\n", "#6 [torch 1/1] RUN x\n", "#6 DONE 0.4s\n"]
    assert list(progress(kept, "vllm-cpu")) == []


def test_one_image_has_the_name_that_its_lines_lack() -> None:
    lines = [
        "#6 [torch 1/1] RUN x\n",
        "#6 0.1 installing\n",
        "#6 0.2 more\n",
        "#6 DONE 90.4s\n",
        "#9 exporting to image\n",
        "#9 DONE 3.0s\n",
    ]
    assert list(progress(lines, "vllm-cpu-cai")) == [
        "torch (vllm-cpu) ...",
        "torch (vllm-cpu): 90 s",
        "writing the image (vllm-cpu-cai): 3 s",
    ]


def test_a_step_that_two_images_share_is_said_once() -> None:
    lines = ["#6 [vllm-cpu-cai ray 1/1] RUN x\n", "#6 0.1 a\n", "#6 [vllm-cpu ray 1/1] RUN x\n", "#6 0.2 b\n", "#6 DONE 7.0s\n"]
    assert list(progress(lines, "vllm-cpu-cai")) == ["Ray (vllm-cpu) ...", "Ray (vllm-cpu): 7 s"]


def test_every_phase_is_a_stage_of_the_dockerfile() -> None:
    dockerfile = (ROOT / "images/Dockerfile").read_text()
    assert [stage for stage in PHASES if f" AS {stage}\n" not in dockerfile] == []
