"""The entrypoint: what needs no prefix, and what runs as it is."""

import re
import subprocess
from pathlib import Path

import pytest

from images.matrix import IMAGES
from ray_serve_cai import cli

pytestmark = pytest.mark.issue(7)
COMMANDS = next(sorted(action.choices) for action in cli._parser()._actions if isinstance(action.choices, dict))


@pytest.fixture
def path(tmp_path: Path) -> str:
    for name in ("ray-serve-cai", "other"):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s " {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


def start(path: str, *arguments: str) -> str:
    command = ("sh", str(IMAGES / "entrypoint.sh"), *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": path}).stdout.strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_needs_no_prefix(path: str, name: str) -> None:
    assert start(path, name, "--json") == f"ray-serve-cai {name} --json"


def test_it_lists_the_commands_and_no_others() -> None:
    listed = re.search(r"^  -\* \| (.+)\) exec ray-serve-cai", (IMAGES / "entrypoint.sh").read_text(), re.MULTILINE)
    assert listed is not None
    assert sorted(listed[1].split(" | ")) == COMMANDS


def test_options_are_ours_and_no_argument_is_a_node(path: str) -> None:
    assert start(path) == "ray-serve-cai node"
    assert start(path, "--version") == "ray-serve-cai --version"


def test_everything_else_runs_as_it_is(path: str) -> None:
    assert start(path, "other", "plan", "a b") == "other plan a b"
    assert start(path, "ray-serve-cai", "node", "--once") == "ray-serve-cai node --once"
