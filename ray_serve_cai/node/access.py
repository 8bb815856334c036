"""API keys as the front door knows them: by digest, in maps that HAProxy looks into. Pure, but for `Maps.write` and `Maps.renew`.

A key is compared by its SHA-256 digest in a tree of digests, so how long that takes says nothing of a key. What a key may do stands
in further maps by its name; all of them can be replaced while HAProxy runs.
Sources: docs.haproxy.org/2.8/management.html, section 9.3 (``prepare map``, ``add map``, ``commit map``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_serve_cai import private_file
from ray_serve_cai.errors import ConfigError, ResourceError

HEADER = "x-rscai-key"
"""Tells the gateway whose request it is; nobody else can send it."""
USUAL = (
    *("v1/.+", "v2/rerank", "rerank", "score", "pooling", "classify", "tokenize", "detokenize", "generate", "encode", "invocations"),
    *("version", "ping", "is_sleeping", "get_model_info", "model_info", "api/chat", "api/generate", "api/tags", "api/show"),
)
"""Paths of engines that any key opens, as patterns; all others, those that change or stop an engine among them, take an admin's."""
ADMINS = ("v1/load_lora_adapter", "v1/unload_lora_adapter")
_LINES = 500
"""Of a map in one command, which must fit into HAProxy's buffer."""


@dataclass(frozen=True)
class Key:
    """One API key.

    Attributes:
        digest: SHA-256 of the key, in small hexadecimal digits.
        models: that it may ask, by name; None for all.
        admin: whether it may do what changes the cluster.
    """

    name: str
    digest: str
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    concurrent: int | None = None
    admin: bool = False


@dataclass(frozen=True)
class Maps:
    """HAProxy's maps in a directory, by name: what it looks up there, and what it finds."""

    directory: Path
    names: Mapping[str, str]
    admins: Mapping[str, str]
    allowed: Mapping[str, str]
    rates: Mapping[str, str]
    streams: Mapping[str, str]

    @classmethod
    def of(cls, keys: Sequence[Key], models: Sequence[str], directory: Path) -> Maps:
        """The maps of some keys, for models in this order.

        Raises:
            ConfigError: a key is for a model that is not served.
        """
        for key in keys:
            for model in key.models or ():
                if model not in models:
                    raise ConfigError(f"API key {key.name!r} is for model {model!r}, which is not served; there are: {', '.join(models)}.")
        return cls(
            directory,
            names={key.digest: key.name for key in keys},
            admins={key.name: "1" for key in keys if key.admin},
            allowed={
                f"{key.name}|{number}": "1"
                for key in keys
                for number, model in enumerate(models)
                if key.models is None or model in key.models
            },
            rates={key.name: str(key.requests_per_minute) for key in keys if key.requests_per_minute},
            streams={key.name: str(key.concurrent) for key in keys if key.concurrent},
        )

    def contents(self) -> dict[Path, Mapping[str, str]]:
        """What each file holds; the names come last, so that nobody has a key before its limits."""
        found = {"admins": self.admins, "allowed": self.allowed, "rates": self.rates, "streams": self.streams, "names": self.names}
        return {place(self.directory, name): lines for name, lines in found.items()}

    def write(self) -> None:
        """Write the files that HAProxy reads when it starts."""
        for path, lines in self.contents().items():
            private_file.write(path, "".join(f"{line}\n" for line in _lines(lines)))

    async def renew(self, socket: Path) -> None:
        """Replace what a running HAProxy has of them, each map at once.

        Raises:
            ResourceError: it does not answer at this socket, or refuses.
        """
        for path, entries in self.contents().items():
            version = re.search(r"version created: (\d+)", await _command(socket, f"prepare map {path}"))
            if version is None:
                raise ResourceError(f"HAProxy has no map {path}.")
            lines = _lines(entries)
            for start in range(0, len(lines), _LINES):
                await _command(socket, f"add map @{version[1]} {path} <<\n" + "\n".join(lines[start : start + _LINES]) + "\n")
            await _command(socket, f"commit map @{version[1]} {path}")
        self.write()


def place(directory: Path, name: str) -> Path:
    """The file of a map."""
    return directory / f"keys-{name}.map"


def _lines(entries: Mapping[str, str]) -> list[str]:
    return [f"{key} {value}" for key, value in entries.items()]


async def _command(socket: Path, line: str) -> str:
    """One command of HAProxy's runtime API, and what it says."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(f"{line}\n".encode())
        await writer.drain()
        said = (await reader.read()).decode()
        writer.close()
    except OSError as error:
        raise ResourceError(f"HAProxy does not answer at {socket}: {error}.") from error
    if re.search(r"unknown|can't|invalid|require", said, re.IGNORECASE):
        raise ResourceError(f"HAProxy: {said.strip()}")
    return said


def rules(paths: Sequence[str], directory: Path, answers: Mapping[int, str]) -> str:
    """The front door's rules for a request and its key.

    Args:
        paths: below which each model is found, but for the first one's, which is taken off before.
        answers: what it returns with 401, 403 and 429.
    """
    below = "|".join(re.escape(path) for path in paths)
    usual, admins = ("|".join(patterns) for patterns in (USUAL, ADMINS))
    maps = {name: place(directory, name) for name in ("names", "admins", "rates", "streams")}
    return f"""    acl open path / /health /ready
    acl open method OPTIONS
    acl writes method POST PUT PATCH DELETE
    acl usual path,url_dec -m reg '^({below})?/({usual})$'
    acl for_admins path,url_dec -m reg '^({below})?/({admins})/?$'
    http-request del-header {HEADER}
    http-request set-var(txn.key) http_auth_bearer,sha2(256),hex,lower
    http-request set-var(txn.key) req.hdr(x-api-key),sha2(256),hex,lower if !{{ var(txn.key) -m found }}
    http-request set-var(txn.user) var(txn.key),map_str({maps["names"]})
    http-request set-var(txn.admin) var(txn.user),map_str({maps["admins"]})
    http-request {answers[401]} if !open !{{ var(txn.user) -m found }}
    http-request {answers[403]} if !open !{{ var(txn.admin) -m found }} for_admins
    http-request {answers[403]} if !open !{{ var(txn.admin) -m found }} !usual
    http-request del-header authorization
    http-request del-header x-api-key
    http-request set-header {HEADER} %[var(txn.user)] if {{ var(txn.user) -m found }}
    http-request track-sc0 var(txn.user) table keys if writes {{ var(txn.user) -m found }}
    http-request set-var(txn.rate) var(txn.user),map_str_int({maps["rates"]})
    http-request set-var(txn.streams) var(txn.user),map_str_int({maps["streams"]})
    http-request set-var(txn.again) int(1)
    http-request {answers[429]} if writes {{ var(txn.streams) -m found }} {{ sc0_conn_cur,sub(txn.streams) gt 0 }}
    http-request set-var(txn.again) int(60),div(txn.rate),add(1) if {{ var(txn.rate) -m found }}
    http-request {answers[429]} if writes {{ var(txn.rate) -m found }} {{ sc0_gpc0_rate,sub(txn.rate) ge 0 }}
    http-request sc-inc-gpc0(0) if writes {{ var(txn.user) -m found }}
"""


def table() -> str:
    """Where HAProxy counts each key's requests of the last minute, and those under way."""
    return """backend keys
    stick-table type string len 64 size 100k expire 2m store gpc0,gpc0_rate(60s),conn_cur
"""


def model_rule(number: int, directory: Path, answer: str) -> str:
    """A model's own rule: only for keys that may ask it."""
    allowed = place(directory, "allowed")
    return (
        f"    http-request {answer} if {{ var(txn.user) -m found }} !{{ var(txn.user),concat(|{number}),map_str({allowed}) -m found }}\n"
        f"    http-request del-header {HEADER}\n"
    )
