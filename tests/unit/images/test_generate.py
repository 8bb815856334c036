"""What is generated is checked, and a resolver that fails is one line."""

from typing import Any

import pytest

from images import generate

pytestmark = pytest.mark.issue(7)


def test_a_file_that_is_stale_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generate.main() == 0
    monkeypatch.setattr(generate, "bake", lambda versions, release: "other")
    assert generate.main() == 1
    assert capsys.readouterr().err == "images/docker-bake.hcl is stale; run: make generate\n"


def test_pins_that_do_not_resolve_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def locks(image: Any, versions: Any) -> dict[str, str]:
        raise generate.LockError("error: No solution found when resolving dependencies\n  cause: Because a depends on b==2 and you require b==1, no.\n")

    monkeypatch.setattr(generate, "locks", locks)
    monkeypatch.setattr(generate, "tools_lock", lambda versions: "")
    monkeypatch.setattr("sys.argv", ["generate.py", "--locks"])
    assert generate.main() == 78
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ray-serve-cai: error: vllm-cpu: the pinned versions do not go together: Because a depends on b==2")
