import logging
import os
from pathlib import Path

import pytest

from ray_serve_cai.errors import HookError, UsageError
from ray_serve_cai.node import hooks
from ray_serve_cai.node.process import Child

ENV = {"PATH": os.environ["PATH"], "RSCAI_ROLE": "worker"}


def program(file: Path, script: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    file.write_text(script)
    file.chmod(mode)
    return file


def test_by_name_and_only_programs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    second, first = program(tmp_path / "20-b"), program(tmp_path / "10-a.sh")
    for name in (".hidden", "10-a.sh~"):
        program(tmp_path / name)
    program(tmp_path / "30-forgotten", mode=0o644)
    (tmp_path / "40-directory").mkdir()
    with caplog.at_level(logging.WARNING):
        assert hooks.found({"RSCAI_HOOKS_DIR": str(tmp_path)}) == [first, second]
        assert hooks.found({}, default=tmp_path) == [first, second]
    assert f"hook {tmp_path}/30-forgotten is not executable" in caplog.text


def test_without_a_directory(tmp_path: Path) -> None:
    assert hooks.found({}, default=tmp_path / "none") == []
    with pytest.raises(UsageError, match=r"RSCAI_HOOKS_DIR is '/nowhere', which is no directory; mount it"):
        hooks.found({"RSCAI_HOOKS_DIR": "/nowhere"})


async def test_what_it_prints_is_passed_on(tmp_path: Path) -> None:
    child = Child("hook", quiet=True)
    await hooks.run(program(tmp_path / "a", '#!/bin/sh\necho "for a $RSCAI_ROLE"\n'), child, ENV)
    assert list(child.last_lines) == ["for a worker"]


@pytest.mark.parametrize(
    ("script", "said"),
    [("#!/bin/sh\nexit 3\n", "ended with exit code 3; mend what it found"), ("no program", "cannot be started: Exec format error")],
)
async def test_one_that_fails(tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(HookError, match=said):
        await hooks.run(program(tmp_path / "a", script), Child("hook", quiet=True), ENV)
