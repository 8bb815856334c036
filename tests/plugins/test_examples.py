"""The programs in docs/examples, run in the image as docs/examples.md says: its Python instead of its launcher."""

from __future__ import annotations

import pytest

from tests.containers import IMAGE, ROOT, SGLANG, run

pytestmark = pytest.mark.full


def lines_of(script: str, image: str = IMAGE) -> list[str]:
    """What a program prints; Ray's notices about its own processes are not the program's."""
    mount = ("--volume", f"{ROOT}/docs/examples:/examples:ro")
    done = run("docker", "run", "--rm", "--shm-size", "1g", *mount, "--entrypoint", "python3", image, f"/examples/{script}", timeout=400)
    return [line for line in done.stdout.splitlines() if "(raylet)" not in line]


@pytest.mark.issue(3)
def test_start_ask_stop(questions: dict[str, str]) -> None:
    assert lines_of("basic_vllm.py") == [questions["What is ray-serve-cai?"], "stopped"]


@pytest.mark.issue(4)
def test_sglang_streams_and_answers_in_its_own_form(questions: dict[str, str]) -> None:
    assert lines_of("sglang_deployment.py", SGLANG) == [questions["What is ray-serve-cai?"], "True stop"]


@pytest.mark.issue(3)
def test_the_engine_is_chosen_by_parameter_configuration_or_default() -> None:
    lines = lines_of("engine_selection.py")
    assert lines[0] == "sglang: not installed"
    assert lines[1].startswith("vllm: 0.")
    assert lines[2:4] == ["by parameter: vllm", "by configuration: vllm"]
    assert lines[4].startswith("by nothing, so the backend's default: engine 'sglang' is installed on no node; installed: vllm;")
    assert lines[5].startswith("by a name that nobody has: engine is 'vlm', which is not registered; did you mean vllm?")
    assert len(lines) == 6


@pytest.mark.issue(4)
def test_and_the_other_engines_image_gives_the_reverse() -> None:
    lines = lines_of("engine_selection.py", SGLANG)
    assert lines[0].startswith("sglang: 0.")
    assert lines[1] == "vllm: not installed"
    assert lines[2].startswith("by parameter: engine 'vllm' is installed on no node; installed: sglang;")
    assert lines[3].startswith("by configuration: engine 'vllm' is installed on no node; installed: sglang;")
    assert lines[4] == "by nothing, so the backend's default: sglang"
    assert len(lines) == 6
