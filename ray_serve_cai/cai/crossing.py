"""Whether pods can do what ranks on several pods do: open TCP connections to each other, on any port, both ways, and move data at once.

A service mesh may hold back connections in which the server speaks first, and a network policy whole ranges of ports; engines then wait
without a word. So before a node joins a cluster with such a model, it tries this with every node that is there, and has them call back.
Who calls proves that it has the cluster's token, which is not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ray_serve_cai import private_file
from ray_serve_cai.errors import RayServeCaiError, UnavailableError
from ray_serve_cai.node import address
from ray_serve_cai.node.address import Address, everywhere

GREETING = "ray-serve-cai"
BYTES = 8 << 20
CHUNK = 1 << 16
TIMEOUT_S = 15.0
FRESH_S = 45.0
"""A node whose record is older is gone."""
FIX = (
    "a service mesh or a network policy stands between the pods of the project: exempt them, "
    "or keep each replica on one node (nodes_per_replica: 1)"
)


@dataclass(frozen=True)
class Measured:
    """The way to one node and back; ``seconds`` for `BYTES` in each direction of each of two connections."""

    peer: str
    seconds: float

    def __str__(self) -> str:
        rate = 4 * BYTES / 1e6 / max(self.seconds, 1e-6)
        return f"{self.peer} is reached, and reaches this node: {4 * BYTES >> 20} MiB in {self.seconds:.2f} s, {rate:.0f} MB/s"


class Crossing:
    """One node's part of it: it answers others as long as it is open, and tries the way to them.

    Args:
        directory: where the cluster's nodes write where they are.
        name: this node's.
        own_ip: where others reach it.
    """

    def __init__(self, directory: Path, name: str, own_ip: str, token: str) -> None:
        self._file = directory / f"{name}.json"
        self._own_ip = own_ip
        self._token = token.encode()
        self._server: asyncio.Server | None = None
        self._port = 0

    async def open(self) -> None:
        """Listen on a port that the system chooses, as engines do, and write it where others look; again to say that it is still so."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, everywhere(self._own_ip))
            self._port = int(self._server.sockets[0].getsockname()[1])
        self._file.parent.mkdir(parents=True, exist_ok=True)
        private_file.write(self._file, json.dumps({"address": str(Address(self._own_ip, self._port))}))

    async def close(self) -> None:
        """Listen no more, and take the record back."""
        server, self._server = self._server, None
        if server:
            server.close()
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

    def peers(self) -> Mapping[str, Address]:
        """The other nodes that said lately where they are; by the file system's clock, which is the same for all."""
        now = self._file.stat().st_mtime
        found = {}
        for file in sorted(self._file.parent.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RayServeCaiError):
                if file != self._file and now - file.stat().st_mtime < FRESH_S:
                    found[file.stem] = address.parse(str(file), json.loads(file.read_text())["address"])
        return found

    async def check(self, name: str, peer: Address) -> Measured:
        """Try the way to a node, and have it try the way back.

        Raises:
            UnavailableError: either does not work; the message has the node, what was seen, and the fix.
        """
        began = time.monotonic()
        try:
            back = await asyncio.wait_for(self._call(peer, back=self._port), TIMEOUT_S)
        except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
            raise UnavailableError(
                f"this node does not reach {name} at {peer} as ranks of one replica must: {_said(error)}; {FIX}."
            ) from error
        if back:
            raise UnavailableError(f"{name} at {peer} does not reach this node as ranks of one replica must: {back}; {FIX}.")
        return Measured(f"{name} at {peer}", time.monotonic() - began)

    async def _call(self, peer: Address, back: int = 0) -> str:
        reader, writer = await asyncio.open_connection(peer.host, peer.port)
        try:
            greeting = (await _line(reader)).split()  # the server speaks first, as engines' servers do
            if len(greeting) != 2 or greeting[0] != GREETING:
                raise ValueError("another program answers there")
            writer.write(json.dumps({"proof": self._proof(greeting[1]), "back": back}).encode() + b"\n")
            sent = os.urandom(CHUNK) * (BYTES // CHUNK)
            writer.write(sent)
            received, _ = await asyncio.gather(reader.readexactly(BYTES), writer.drain())
            if received != sent:
                raise ValueError("what came back is not what was sent")
            return await _line(reader)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = secrets.token_hex(16)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            writer.write(f"{GREETING} {nonce}\n".encode())
            told = json.loads(await asyncio.wait_for(_line(reader), TIMEOUT_S))
            if not hmac.compare_digest(str(told["proof"]), self._proof(nonce)):
                raise ValueError("no proof")
            left = BYTES
            while left:
                chunk = await asyncio.wait_for(reader.read(min(CHUNK, left)), TIMEOUT_S)
                if not chunk:
                    raise ValueError("it left")
                left -= len(chunk)
                writer.write(chunk)
                await writer.drain()
            writer.write((await self._call_back(writer, int(told["back"]))).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _call_back(self, writer: asyncio.StreamWriter, port: int) -> str:
        """Why the way back does not work; empty where it does, or where it is not asked for."""
        if not port:
            return ""
        caller = Address(str(writer.get_extra_info("peername")[0]), port)
        try:
            await asyncio.wait_for(self._call(caller), TIMEOUT_S / 2)
        except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
            return _said(error)
        return ""

    def _proof(self, nonce: str) -> str:
        return hmac.new(self._token, nonce.encode(), hashlib.sha256).hexdigest()


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ValueError("the connection ended before a word was said")
    return line.decode().strip()


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no word, or not all data, within {TIMEOUT_S:g} s"
    return " ".join(str(error).split()) or type(error).__name__
