"""API keys as people give them, in a variable or a file -> `ray_serve_cai.node.access.Key`, which knows only their digests."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, SecretStr, ValidationError, model_validator

from ray_serve_cai.config import Strict
from ray_serve_cai.errors import ConfigError, UsageError
from ray_serve_cai.node.access import Key
from ray_serve_cai.node.environment import text

VARIABLE, POINTER = "RSCAI_API_KEYS", "RSCAI_API_KEYS_FILE"
ADMIN = "admin"
"""In a variable, the name whose key is an admin's."""
SHORTEST = 20
PREFIX = "sk-rscai-"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class Entry(Strict):
    """One key of a file."""

    name: Annotated[str, Field(pattern=f"^{NAME}$", description="Stands in logs and metrics in place of the key.")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(None, description="Digest of the key, in hexadecimal digits.")
    key: SecretStr | None = Field(None, description=f"The key itself, in place of its digest: at least {SHORTEST} characters.")
    models: Annotated[list[str], Field(min_length=1)] | None = Field(None, description="Models that it may ask. Default: all.")
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Requests in any 60 seconds; more are answered with 429."
    )
    concurrent: Annotated[int, Field(ge=1, le=100_000)] | None = Field(None, description="Requests at a time; more are answered with 429.")
    admin: bool = Field(False, description="Also what changes or watches the cluster: `/metrics`, adapters, an engine's own controls.")

    @model_validator(mode="after")
    def _is_a_key(self) -> Entry:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        if self.key is not None:
            check(self.key.get_secret_value())
        return self

    def known(self) -> Key:
        """What the front door is told."""
        digest = self.sha256 or digest_of(self.key.get_secret_value() if self.key else "")
        models = tuple(self.models) if self.models else None
        return Key(self.name, digest, models, self.requests_per_minute, self.concurrent, self.admin)


@dataclass(frozen=True)
class Source:
    """Where keys come from: a file, which is read again when it changes, or a text that stays as it is."""

    file: Path | None
    given: str = ""

    def read(self) -> tuple[Key, ...]:
        """The keys as they are now.

        Raises:
            ConfigError: they cannot be read, or one cannot be used; no message holds a key.
        """
        if self.file is None:
            return parse(self.given, VARIABLE)
        try:
            return parse(self.file.read_text(), str(self.file))
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "no text"
            raise ConfigError(f"{POINTER} is {str(self.file)!r}: {said}; mount the file there, readable for this user.") from None

    def stamp(self) -> object:
        """Another value whenever the file may have changed; None where it is not there."""
        try:
            seen = os.stat(self.file) if self.file else None
        except OSError:
            return None
        return (seen.st_mtime_ns, seen.st_ino, seen.st_size) if seen else ""


def source(env: Mapping[str, str]) -> Source | None:
    """The keys of an environment, None where it names none.

    Raises:
        UsageError: they are given in two ways, or the engine asks for a key of its own besides.
    """
    given, file = text(env, VARIABLE), text(env, POINTER)
    if given is None and file is None:
        return None
    if given is not None and file is not None:
        raise UsageError(f"{VARIABLE} and {POINTER} are both set; unset one of them.")
    if text(env, "VLLM_API_KEY") is not None:
        which = VARIABLE if given is not None else POINTER
        raise UsageError(f"{which} and VLLM_API_KEY are both set, and a request has one key; unset VLLM_API_KEY on all nodes.")
    return Source(Path(file).expanduser() if file else None, given or "")


def parse(content: str, where: str) -> tuple[Key, ...]:
    """A YAML list of entries; or keys apart by commas or white space, each alone or as ``name=key``.

    Raises:
        ConfigError: as for `Source.read`.
    """
    try:
        data = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{where}: neither YAML nor a list of keys.") from None
    entries = data if isinstance(data, list) else [_short(number, word) for number, word in enumerate(_words(content), 1)]
    keys = [_entry(entry, f"{where}: [{number}]") for number, entry in enumerate(entries)]
    if not keys:
        raise ConfigError(f"{where} holds no key; write one entry for each, as `ray-serve-cai key NAME` prints them.")
    for position, key in enumerate(keys):
        for other in keys[:position]:
            if key.name == other.name:
                raise ConfigError(f"{where}: two keys are named {key.name!r}; names must differ.")
            if key.digest == other.digest:
                raise ConfigError(f"{where}: {other.name!r} and {key.name!r} are the same key; give each its own.")
    return tuple(keys)


def _words(content: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", content) if word]


def _short(number: int, word: str) -> dict[str, object]:
    name, _, key = word.partition("=")
    if not key.strip("=") or not re.fullmatch(NAME, name):  # Base64 ends with that sign
        name, key = f"key-{number}", word
    return {"name": name, "key": key, "admin": name == ADMIN}


def _entry(data: object, where: str) -> Key:
    """One entry, without a word of what it holds where it is wrong."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: is no mapping; write name, sha256, and what the key may do.")
    given = {**data, "key": SecretStr(data["key"])} if isinstance(data.get("key"), str) else dict(data)
    try:
        return Entry.model_validate(given).known()
    except ValidationError as error:
        said = [(".".join(map(str, item["loc"])), str(item["msg"]).removeprefix("Value error, ")) for item in error.errors()]
        raise ConfigError("; ".join(f"{where}{f'.{key}' if key else ''}: {message}" for key, message in said) + ".") from None


def check(key: str) -> None:
    """See that a key can be sent, and not be guessed at once.

    Raises:
        ValueError: it cannot be used.
    """
    if len(key) < SHORTEST or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", key):
        raise ValueError(f"a key has at least {SHORTEST} letters, digits or any of ._~+/=-, for example from: ray-serve-cai key NAME")


def digest_of(key: str) -> str:
    """What of a key may be written down."""
    return hashlib.sha256(key.encode()).hexdigest()


def new() -> str:
    """A key that nobody can guess: 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)
