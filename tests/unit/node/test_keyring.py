"""The keys of a running head follow their source."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from ray_serve_cai.errors import ConfigError, ResourceError
from ray_serve_cai.node import access, keyring
from ray_serve_cai.node.access import Key
from ray_serve_cai.node.keyring import Keyring

pytestmark = pytest.mark.issue(10)


class Source:
    """Keys that a test changes."""

    def __init__(self) -> None:
        self.keys: list[Key] = [Key("a", "1" * 64)]
        self.version: object = 1

    def read(self) -> Sequence[Key]:
        if not self.keys:
            raise ConfigError("no key is there")
        return self.keys

    def stamp(self) -> object:
        return self.version


async def test_a_change_is_given_to_the_front_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keyring, "WATCH_S", 0.01)
    renewed: list[list[str]] = []
    deaf = False

    async def renew(maps: access.Maps, socket: Path) -> None:
        if deaf:
            raise ResourceError("HAProxy does not answer")
        renewed.append(list(maps.names.values()))

    monkeypatch.setattr(access.Maps, "renew", renew)
    source = Source()
    ring = Keyring(source, ["demo"], tmp_path)
    ring.write()
    assert access.place(tmp_path, "names").read_text() == f"{'1' * 64} a\n"

    async def seen(words: str) -> None:
        for _ in range(500):
            if words in caplog.text:
                caplog.clear()
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"{words!r} was not said; only {caplog.text!r}")

    with caplog.at_level(logging.INFO):
        watching = asyncio.create_task(ring.watch(tmp_path / "socket"))
        await asyncio.sleep(0.05)
        assert renewed == [], "nothing changed"
        source.keys, source.version = [*source.keys, Key("b", "2" * 64)], 2
        await seen("API keys: a, b")
        source.version = None
        await asyncio.sleep(0.05)
        source.keys, source.version = [], 3
        await seen("the API keys stay as they were: no key is there")
        deaf = True
        source.keys, source.version = [Key("c", "3" * 64)], 4
        await seen("the API keys are tried again: HAProxy does not answer")
        deaf = False
        await seen("API keys: c")
        watching.cancel()
    assert renewed == [["a", "b"], ["c"]]
