"""How a command on the head hands a new configuration to the serving process, and hears what becomes of it: by files."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray_serve_cai import private_file
from ray_serve_cai.errors import ERRORS_BY_NAME, EngineError, RayServeCaiError, UnavailableError

POLL_S = 0.25
UNDER_WAY, PLANNED, DONE, FAILED = "under way", "planned", "done", "failed"


@dataclass(frozen=True)
class Request:
    """A configuration to be served from now on, as YAML would give it.

    With ``dry_run`` only the plan is wanted; with ``cancel`` the end of an update that is under way, whatever the configuration.
    """

    config: dict[str, Any]
    allow_downtime: bool = False
    dry_run: bool = False
    cancel: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class Answer:
    """What has become of a request: one of the constants above, the plan by model, and the error where it failed."""

    id: str
    state: str
    plan: dict[str, str] = field(default_factory=dict)
    detail: str = ""
    error: str = ""
    error_type: str = ""

    def as_error(self) -> RayServeCaiError:
        """The error, as the serving process had it."""
        return ERRORS_BY_NAME.get(self.error_type, EngineError)(self.error)


class Mailbox:
    """One request at a time, and an answer to each, in a directory of the head."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._request = directory / "update.json"

    def send(self, request: Request) -> None:
        """Hand a request over.

        Raises:
            UnavailableError: another one has not been taken yet.
        """
        mine = self._request.with_suffix(f".{request.id}")
        private_file.write(mine, json.dumps(asdict(request)))
        try:
            os.link(mine, self._request)  # unlike a rename, it replaces nothing
        except FileExistsError as error:
            raise UnavailableError("another update has not been looked at yet; wait for it, then try again.") from error
        finally:
            mine.unlink()

    def withdraw(self, request: Request) -> None:
        """Take a request back, if nobody has looked at it."""
        if (there := self._read(self._request)) and there["id"] == request.id:
            self._request.unlink(missing_ok=True)

    def follow(self, request: Request, timeout_s: float) -> Iterator[Answer]:
        """Hand a request over, and give every answer to it, the last one included.

        Raises:
            UnavailableError: no last answer within so many seconds; an update that has begun goes on.
            RayServeCaiError: it failed; the error is the serving process's own.
        """
        self.send(request)
        deadline, last = time.monotonic() + timeout_s, None
        try:
            while last is None or last.state == UNDER_WAY:
                if time.monotonic() > deadline:
                    seen = (last.detail or "it has begun") if last else "the serving process has not looked at it, and it was taken back"
                    raise UnavailableError(f"not done after {timeout_s:.0f} s; last seen: {seen}.")
                time.sleep(POLL_S)
                answer = self.answer_to(request)
                if answer and answer != last:
                    last = answer
                    yield answer
        finally:
            self.withdraw(request)
            self._answer(request.id).unlink(missing_ok=True)
        if last.state == FAILED:
            raise last.as_error()

    def clear(self) -> None:
        """Forget what was sent to a former serving process."""
        for file in self._directory.glob("update*.*"):
            file.unlink(missing_ok=True)

    def take(self) -> Request | None:
        """The request that waits, if there is one."""
        if not self._request.exists():
            return None
        there = self._read(self._request)
        self._request.unlink(missing_ok=True)
        with suppress(TypeError):
            return Request(**there) if there else None
        return None

    def answer(self, answer: Answer) -> None:
        """Say what becomes of a request."""
        private_file.write(self._answer(answer.id), json.dumps(asdict(answer)))

    def answer_to(self, request: Request) -> Answer | None:
        """The latest answer to this request."""
        there = self._read(self._answer(request.id))
        return Answer(**there) if there else None

    def _answer(self, id_: str) -> Path:
        return self._directory / f"update-answer.{id_}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        with suppress(OSError, ValueError, TypeError):
            return dict(json.loads(path.read_text()))
        return None
