"""What is generated is checked, and a resolver that fails is one line."""

from typing import Any

import pytest

from images import command, generate

pytestmark = pytest.mark.issue(7)


def test_a_file_that_is_stale_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.main(generate.run, ["--check"]) == 0
    monkeypatch.setattr(generate, "bake", lambda versions, release: "other")
    assert command.main(generate.run, ["--check"]) == 65
    assert capsys.readouterr().err == "ray-serve-cai: error: images/docker-bake.hcl is stale; run: make generate\n"


@pytest.mark.parametrize(("arguments", "words"), [(["--chekc"], "unrecognized arguments: --chekc; see --help."), (["x"], "unrecognized arguments: x")])
def test_a_command_line_that_cannot_be_used(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(generate.run, arguments) == 64
    assert capsys.readouterr().err.startswith(f"ray-serve-cai: error: {words}")


def test_without_uv(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert command.main(generate.run, ["--locks"]) == 69
    assert capsys.readouterr().err == "ray-serve-cai: error: there is no uv on the PATH; take the environment's: make locks\n"


def test_pins_that_do_not_resolve_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def locks(image: Any, versions: Any) -> dict[str, str]:
        raise generate.LockError("error: No solution found when resolving dependencies\n  cause: Because a depends on b==2 and you require b==1, no.\n")

    monkeypatch.setattr(generate, "locks", locks)
    monkeypatch.setattr(generate, "tools_lock", lambda versions: "")
    assert command.main(generate.run, ["--locks"]) == 78
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ray-serve-cai: error: vllm-cpu: the pinned versions do not go together: Because a depends on b==2")
