"""The programs in docs/examples, run in the image as docs/examples.md says: its Python instead of its launcher."""

from __future__ import annotations

import pytest

from tests.containers import IMAGE, ROOT, run

pytestmark = [pytest.mark.issue(3), pytest.mark.full]


def lines_of(script: str) -> list[str]:
    """What a program prints; Ray's notices about its own processes are not the program's."""
    mount = ("--volume", f"{ROOT}/docs/examples:/examples:ro")
    done = run("docker", "run", "--rm", "--shm-size", "1g", *mount, "--entrypoint", "python3", IMAGE, f"/examples/{script}", timeout=400)
    return [line for line in done.stdout.splitlines() if "(raylet)" not in line]


def test_start_ask_stop(questions: dict[str, str]) -> None:
    assert lines_of("basic_vllm.py") == [questions["What is ray-serve-cai?"], "stopped"]


def test_the_engine_is_chosen_by_parameter_configuration_or_default() -> None:
    lines = lines_of("engine_selection.py")
    assert lines[0] == "sglang: not installed"
    assert lines[1].startswith("vllm: 0.")
    assert lines[2:4] == ["by parameter: vllm", "by configuration: vllm"]
    assert lines[4].startswith("by nothing, so the backend's default: engine 'sglang' is installed on no node; installed: vllm;")
    assert lines[5].startswith("by a name that nobody has: engine is 'vlm', which is not registered; did you mean vllm?")
    assert len(lines) == 6
