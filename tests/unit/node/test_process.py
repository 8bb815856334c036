import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_serve_cai.node.process import KEPT_LINES, Child

ENV = {"PATH": os.environ["PATH"]}


async def run(script: str, *, quiet: bool = False) -> tuple[Child, int]:
    child = Child("test", quiet=quiet)
    await child.start(["sh", "-c", script], ENV)
    return child, await child.wait()


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
async def test_exit_codes_are_a_shells(script: str, code: int) -> None:
    assert (await run(script))[1] == code


async def test_output_is_passed_on_and_kept(capfd: pytest.CaptureFixture[str]) -> None:
    child, _ = await run("echo one; echo; echo two >&2; printf three")
    assert list(child.last_lines) == ["one", "two", "three"]
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.partition(" test: ")[2] for line in err.splitlines()] == ["one", "two", "three"]


async def test_a_quiet_childs_output_is_only_kept(capfd: pytest.CaptureFixture[str]) -> None:
    child, _ = await run("echo one", quiet=True)
    assert list(child.last_lines) == ["one"]
    assert capfd.readouterr() == ("", "")


async def test_only_the_last_lines_are_kept() -> None:
    child, _ = await run("seq 100", quiet=True)
    assert list(child.last_lines) == [str(number) for number in range(101 - KEPT_LINES, 101)]


async def test_bytes_that_are_no_text() -> None:
    child, _ = await run(r"printf '\377x\n'", quiet=True)
    assert list(child.last_lines) == ["\ufffdx"]


async def test_a_very_long_line_does_not_block_the_child() -> None:
    child = Child("test", quiet=True)
    script = "import sys; sys.stdout.write('x' * (16 << 20)); sys.stdout.write('\\nlast\\n')"
    await child.start([sys.executable, "-c", script], ENV)
    try:
        assert await asyncio.wait_for(child.wait(), 3) == 0
        assert child.last_lines[-1] == "last"
    finally:
        await child.stop(0)


async def test_the_environment_is_the_one_given() -> None:
    child = Child("test", quiet=True)
    await child.start(["env"], {"PATH": os.environ["PATH"], "ONLY": "this"})
    await child.wait()
    assert "ONLY=this" in child.last_lines
    assert not any(line.startswith("HOME=") for line in child.last_lines)


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        await Child("test").start(["no-such-program"], ENV)


async def test_a_child_that_was_not_started() -> None:
    child = Child("test")
    assert not child.running
    child.signal(signal.SIGTERM)
    await child.stop(1)
    with pytest.raises(RuntimeError, match="test was not started"):
        await child.wait()


async def test_running() -> None:
    child = Child("test")
    await child.start(["sleep", "60"], ENV)
    assert child.running
    await child.stop(5)
    assert not child.running
    child.signal(signal.SIGTERM)  # nothing happens
    await child.stop(5)  # nor here


async def test_a_signal() -> None:
    child = Child("test", quiet=True)
    await child.start(["sh", "-c", "trap 'echo got it; exit 3' USR1; echo up; while :; do sleep 0.01; done"], ENV)
    await until(lambda: "up" in child.last_lines)
    child.signal(signal.SIGUSR1)
    assert await child.wait() == 3
    assert child.last_lines[-1] == "got it"


async def test_sigterm_comes_before_sigkill() -> None:
    child = Child("test", quiet=True)
    await child.start(["sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"], ENV)
    await until(lambda: "up" in child.last_lines)
    await child.stop(5)
    assert await child.wait() == 0
    assert child.last_lines[-1] == "bye"


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    child = Child("test", quiet=True)
    await child.start(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"], ENV)
    await until(lambda: "up" in child.last_lines)
    await child.stop(0.05)
    assert await child.wait() == 137


async def test_a_death_is_seen_although_grandchildren_live_on() -> None:
    child = Child("test", quiet=True)
    await child.start(["sh", "-c", "sleep 60 & exit 3"], ENV)
    try:
        assert await asyncio.wait_for(child.wait(), 4) == 3
    finally:
        await child.stop(0)


async def test_its_own_children_go_with_it() -> None:
    child = Child("test", quiet=True)
    await child.start(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; exec sleep 60"], ENV)
    await until(lambda: bool(child.last_lines))
    grandchild = Path("/proc") / child.last_lines[0]
    assert grandchild.exists()
    await child.stop(5)
    await until(lambda: not grandchild.exists() or "\nState:\tZ" in (grandchild / "status").read_text())
