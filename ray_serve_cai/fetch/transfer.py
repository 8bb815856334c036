"""The bytes of several files at a time, each from where it broke off, verified before it counts."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress

from ray_serve_cai.errors import ResourceError, UnavailableError, counted, sized
from ray_serve_cai.fetch.hub import BrokenOffError, Hub
from ray_serve_cai.fetch.lock import Say
from ray_serve_cai.fetch.selection import File
from ray_serve_cai.fetch.store import Store, digest

AT_A_TIME = 8
"""As huggingface_hub does."""
PROGRESS_S = 10.0
RETRIES = 5
"""In a row, without a byte between them."""
RETRY_S = 1.0
"""Before the first one; doubled before each further one."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _StoppedError(Exception):
    """Another file failed, or somebody interrupted."""


class Transfer:
    """Files of one commit on their way into the cache."""

    def __init__(self, model: str, hub: Hub, store: Store, commit: str, files: Iterable[File]) -> None:
        self._model, self._hub, self._store, self._commit = model, hub, store, commit
        self._files = sorted(files, key=lambda file: -file.size)
        self._total = sum(file.size for file in self._files)
        self._here = sum(store.arrived(file) for file in self._files)
        self._whole = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.missing = self._total - self._here
        """Bytes that are not there yet."""
        self.received = 0
        """Bytes that came over the network."""

    def run(self, say: Say) -> None:
        """Until all files are whole; what is there stays when it ends with an error or an interrupt.

        Raises:
            ModelNotFoundError: the hub refuses a file.
            ResourceError: the disk is full, or cannot be written.
            UnavailableError: the download broke off, or a file came wrong twice.
        """
        said = ""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            running = [pool.submit(self._one, file) for file in self._files]
            try:
                waiting = True
                while waiting:
                    ended, pending = wait(running, PROGRESS_S if said else 0, FIRST_EXCEPTION)
                    for one in ended:
                        one.result()
                    waiting = bool(pending)
                    said = self.progress()
                    say(said)
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def progress(self) -> str:
        """One line: the phase, how much there is, how fast it comes, how long it will take."""
        if self._here < self._total:
            rate = self.received / max(time.monotonic() - self._began, 1e-3)
            left = f", {(self._total - self._here) / rate:.0f} s left" if self.received else ""
            share = 100 * self._here // self._total
            return f"downloading: {sized(self._here)} of {sized(self._total)} ({share} %), {sized(int(rate))}/s{left}"
        return f"verifying: {self._whole} of {counted(len(self._files), 'file')} right"

    def _one(self, file: File) -> None:
        try:
            for _ in range(2):
                self._fill(file)
                path = self._store.incomplete(file)
                path.touch()  # an empty file has nothing to be asked for
                found = digest(path, file)
                if found == file.digest:
                    self._store.keep(file)
                    with self._lock:
                        self._whole += 1
                    return
                self._forget(file)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise ResourceError(
                    f"the disk of the model cache is full after {sized(self._here)} of {sized(self._total)} of model {self._model!r}; "
                    "make room and run the command again: it goes on from there."
                ) from error
            raise ResourceError(
                f"the model cache cannot be written: {error}; see to its file system, and run the command again."
            ) from error
        raise UnavailableError(
            f"{file.name} of model {self._model!r} came twice with another content than the hub {self._hub.url} says "
            f"({found[:12]} instead of {file.digest[:12]}); look at what lies between, or set HF_ENDPOINT to another hub."
        )

    def _fill(self, file: File) -> None:
        failed = 0
        while (start := self._store.arrived(file)) < file.size:
            why = "it ended early"
            try:
                self._append(file, start)
            except BrokenOffError as error:
                why = str(error)
            if self._store.arrived(file) > start:
                failed = 0
                continue
            failed += 1
            if failed > RETRIES:
                raise UnavailableError(
                    f"the download of model {self._model!r} from {self._hub.url} broke off at {sized(self._here)} of {sized(self._total)} "
                    f"({file.name}: {why}); what is there stays: run the command again, and it goes on from there."
                )
            self._stop.wait(RETRY_S * 2 ** (failed - 1))
            self._continue()

    def _append(self, file: File, start: int) -> None:
        path = self._store.incomplete(file)
        with self._hub.bytes_of(self._commit, file, start) as (offset, chunks), path.open("ab") as out:
            if offset < start:  # a hub that gives no parts
                out.truncate(offset)
                self._count(offset - start)
            for chunk in chunks:
                out.write(chunk)
                self._count(len(chunk), received=len(chunk))
                self._continue()
                if out.tell() > file.size:
                    return

    def _forget(self, file: File) -> None:
        self._count(-self._store.arrived(file))
        with suppress(FileNotFoundError):
            self._store.incomplete(file).unlink()

    def _continue(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _count(self, here: int, received: int = 0) -> None:
        with self._lock:
            self._here += here
            self.received += received
