"""A child process of the launcher: started in its own group, its output passed on, its last lines kept."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from io import FileIO

import psutil

from ray_serve_cai import logs

KEPT_LINES = 15
LINE_BYTES = 1 << 16
_PR_SET_CHILD_SUBREAPER = 36
_KILLED_S = 5.0


class Child:
    """One supervised process.

    Args:
        name: its component name, for people.
        quiet: keep the output for a failure instead of passing it on.
    """

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self.name = name
        self._quiet = quiet
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)

    async def start(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it.

        Raises:
            OSError: the program cannot be executed.
        """
        out, into = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=dict(env), stdin=asyncio.subprocess.DEVNULL, stdout=into, stderr=into, start_new_session=True
            )
        except BaseException:
            os.close(out)
            raise
        finally:
            os.close(into)
        self._reader = asyncio.create_task(self._read(os.fdopen(out, "rb", buffering=0)))

    async def wait(self) -> int:
        """Its exit code, as a shell would give it; what it wrote before is read first.

        Its children may hold the pipe on: that ends nobody's waiting, which is why the pipe is not asyncio's own.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        code = await self._process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=2)
        return code if code >= 0 else 128 - code

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; nothing where it has ended."""
        if self.running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for its whole group when the grace is over."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self.wait()

    async def _read(self, pipe: FileIO) -> None:
        """Pass lines on until every holder of the pipe is gone; a line of any length costs at most `LINE_BYTES`."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        try:
            rest = b""
            while chunk := await stream.read(LINE_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._say(line)
                rest = rest[-LINE_BYTES:]
            self._say(rest)
        finally:
            transport.close()

    def _say(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self.last_lines.append(line)
            if not self._quiet:
                logs.relay(self.name, line)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own one ends, as PID 1 of a container would (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> list[str]:
    """Kill whatever is left of a child that has ended, and return its names: in a container of its own all of it would be gone."""
    left = psutil.Process().children(recursive=True)
    names = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                names.append(process.name())
            process.kill()
    psutil.wait_procs(left, timeout=_KILLED_S)
    return names


def reap(own: int | None) -> None:
    """Let adopted processes that have ended go; ``own`` is a child that somebody waits for."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.pid != own and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
