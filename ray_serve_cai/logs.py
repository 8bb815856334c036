"""One log format for every process of a node: to stderr, each line with the node, its role and the component that speaks."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import socket
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
ERROR = "ray-serve-cai: error: "
"""How the line begins with which a command leaves."""
HIDDEN = "***"
_KEYS = ("time", "level", "node", "role", "component", "message")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_LEVEL_WITHIN = 120
_BY_RAY = re.compile(r"\((?P<component>[^()]+?) pid=\d+(?:, ip=(?P<ip>[^)]+))?\) ?(?P<message>.*)")
"""How Ray's driver marks a line of another process, on whichever node it runs (ray/_private/worker.py, print_worker_logs)."""


@dataclass(frozen=True)
class Speaker:
    """Who speaks, and how: ``role`` is empty until it is decided, ``node`` is the host's name."""

    component: str
    role: str = ""
    node: str = field(default_factory=socket.gethostname)
    style: str = TEXT

    def line(self, level: str, message: str, *, when: float | None = None, component: str = "", ip: str = "") -> str:
        """One record, without its line end; ``ip`` is the node that it comes from, where that is another one."""
        moment = time.time() if when is None else when
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
        values = (stamp, level, self.node, self.role, component or self.component, message)
        record = dict(zip(_KEYS, values, strict=True)) | ({"from": ip} if ip else {})
        return json.dumps(record, ensure_ascii=False) if self.style == JSON else _text(record)


def _text(record: Mapping[str, str]) -> str:
    component = f"{record['component']}@{record['from']}" if "from" in record else record["component"]
    return f"{record['time']} {record['level']} {record['role'] or '-'}@{record['node']} {component}: {record['message']}"


_speaker = Speaker("python")


_copies: list[logging.Handler] = []


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if getattr(record, "relayed", False):  # it is a whole line already
            return message
        if record.exc_info:
            message += f"\n{self.formatException(record.exc_info)}"
        return _speaker.line(record.levelname, message, when=record.created)


def set_up(level: str, component: str, style: str = TEXT) -> None:
    """Send all log records of this process to stderr; called by the CLI, once."""
    global _speaker
    _speaker = Speaker(component, style=style)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "aiohttp.access"):
        logging.getLogger(chatty).setLevel("WARNING")


def speak_as(role: str) -> None:
    """Name the node's role in every line from now on."""
    global _speaker
    _speaker = replace(_speaker, role=role)


def last_words(message: str) -> str:
    """The line with which a command leaves: as people know it, or as a record where this process logs those."""
    line = f"{ERROR}{message}"
    return _speaker.line("ERROR", line) if _speaker.style == JSON else line


def error_in(line: str) -> str | None:
    """The message of a command's last words, in whichever style; None where the line is another one."""
    record = _record(line)
    said = record["message"] if record else line
    return said.removeprefix(ERROR) if said.startswith(ERROR) else None


def relay(component: str, line: str) -> None:
    """Pass a child's line on as one of this node's: a record of our own as it is, any other under the name of who wrote it."""
    said = relayed(_speaker, component, line)
    print(said, file=sys.stderr, flush=True)
    for handler in _copies:
        handler.handle(logging.makeLogRecord({"msg": said, "relayed": True}))


def copy_to(handler: logging.Handler) -> None:
    """Give a second place all that this process writes from now on, lines of its children included."""
    handler.setFormatter(_Formatter())
    logging.getLogger().addHandler(handler)
    _copies.append(handler)


def relayed(speaker: Speaker, component: str, line: str) -> str:
    """What `relay` prints. Pure but for the time."""
    plain = _ESCAPES.sub("", line)
    record = _record(plain)
    if record is not None and speaker.style == JSON:
        return plain
    if record is not None:
        return record["message"] if record["message"].startswith(ERROR) else _text(record)
    if plain.startswith(ERROR) and speaker.style == TEXT:
        return plain
    level, by_ray = _LEVEL.search(plain[:_LEVEL_WITHIN]), _BY_RAY.fullmatch(plain)
    said = level[1] if level else "INFO"
    if by_ray:
        return speaker.line(said, by_ray["message"], component=by_ray["component"], ip=by_ray["ip"] or "")
    return speaker.line("ERROR" if plain.startswith(ERROR) else said, plain, component=component)


def _record(line: str) -> dict[str, str] | None:
    """A record that a process of ours wrote in JSON, or None."""
    if not line.startswith('{"time": '):
        return None
    try:
        record: dict[str, str] = json.loads(line)
    except ValueError:
        return None
    return record if set(_KEYS) <= set(record) else None


def hide(secrets: Collection[str]) -> None:
    """Keep these values out of every record of this process, whoever writes it: SGLang logs all of its arguments when it starts."""
    make = logging.getLogRecordFactory()

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a format that does not fit; its handler says so
            return record
        if any(secret in message for secret in secrets):
            for secret in secrets:
                message = message.replace(secret, HIDDEN)
            record.msg, record.args = message, None
        return record

    if secrets:
        logging.setLogRecordFactory(made)


def outlive_configuration(logger: logging.Logger) -> None:
    """Let the buffers of a logger write on when somebody configures logging anew.

    ``logging.config.dictConfig``, which vLLM calls when it is imported, closes all handlers of the process. A file opens again at
    its next record, but a closed `MemoryHandler` has no target any more: Ray Serve's log file ends, and since the buffer
    is emptied only into a target, it keeps every record from then on.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.handlers.MemoryHandler):
            handler.close = handler.flush  # type: ignore[method-assign]
