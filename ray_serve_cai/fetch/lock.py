"""One process at a time, on one machine or on several that share a file system.

``flock``, which the kernel gives back when its holder dies, whatever it dies of. On NFS it works across machines: a server of version 4
gives back the locks of a machine that died when its lease ends, after 90 s by default. What the holder writes into the file is for those
who wait, and decides nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_serve_cai.errors import ResourceError

POLL_S = 1.0
SAY_EVERY_S = 30.0
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NOTE_BYTES = 4096

Say = Callable[[str], None]


@contextmanager
def held(path: Path, say: Say) -> Iterator[Say]:
    """Wait for the lock, saying who has it and what it does; gives a function by which its holder says what it does.

    Raises:
        ResourceError: the file system has no locks, or the file is another user's.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        with suppress(PermissionError):  # another uid's file: it has set the mode
            os.fchmod(descriptor, 0o664)
        _wait(descriptor, path, say)
        _note(descriptor, "")
        yield lambda what: _note(descriptor, what)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, say: Say) -> None:
    next_word = began = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _TAKEN:
                raise _unusable(path, error) from error
        if time.monotonic() >= next_word:
            next_word += SAY_EVERY_S
            say(f"waiting for {_holder(descriptor)} ({time.monotonic() - began:.0f} s)")
        time.sleep(POLL_S)


def _note(descriptor: int, what: str) -> None:
    note = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "what": what}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, note, 0)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, _NOTE_BYTES, 0))
    except ValueError:
        return "another process, which fetches the same model"
    return f"process {note['pid']} on {note['host']}, which fetches the same model" + (f": {note['what']}" if note["what"] else "")


def _unusable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"{path} cannot be locked ({error.strerror}); give uid {os.getuid()} the right to write there, and use a file system with locks "
        "(NFS without nolock), or name another cache with HF_HOME."
    )
