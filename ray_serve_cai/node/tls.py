"""TLS between nodes: Ray's own variables for its gRPC channels, and whether peers would accept what they name.

Each process of a node is server and client with one certificate, and each side verifies the other (ray/_common/tls_utils.py). What is
found here would otherwise be a cluster that hangs: gRPC tries again for ever and logs nothing that says why.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass
from typing import Any

from ray_serve_cai.errors import TlsError, UnavailableError, UsageError
from ray_serve_cai.node import address
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.environment import Environment, choice, text

SWITCH = "RAY_USE_TLS"
CERTIFICATE, KEY, AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"
GREETING_S = 60.0
POLL_S = 0.5
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of HTTP/2 begins: the preface, and settings without a change (RFC 9113, 3.4)."""
_HOLD = {
    CERTIFICATE: (b"-----BEGIN CERTIFICATE-----", "this node's certificate"),
    KEY: (b"PRIVATE KEY-----", "its private key"),
    AUTHORITY: (b"-----BEGIN CERTIFICATE-----", "the certificate of the authority that signed those of all nodes"),
}


@dataclass(frozen=True)
class Files:
    """Paths of PEM files: the node's certificate and its key, and the authority's certificate."""

    certificate: str
    key: str
    authority: str


def given(env: Environment) -> Files | None:
    """The files that Ray is told to use; None where it is told to use none.

    Raises:
        UsageError: the switch has a value that Ray does not know, or a file is not named.
    """
    if choice(env, SWITCH, ("1", "true", "0", "false"), "0") in ("0", "false"):
        return None
    paths = {name: text(env, name) for name in _HOLD}
    for name, path in paths.items():
        if path is None:
            raise UsageError(f"{SWITCH} is {env[SWITCH]!r} and {name} is not set; name the PEM file with {_HOLD[name][1]}.")
    return Files(*(str(path) for path in paths.values()))


def check(env: Environment, node_ip: str | None) -> float | None:
    """When the node's certificate ends, in seconds since the epoch, after a handshake of the node with itself; None without TLS.

    Args:
        node_ip: the address under which other nodes reach this one, which the certificate must name; None where it is not known yet.

    Raises:
        UsageError: as `given`.
        TlsError: a file cannot be read, does not hold what it should, or peers would refuse the certificate.
    """
    files = given(env)
    if files is None:
        return None
    _read(files)
    contexts = [_context(purpose, files) for purpose in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)]
    try:
        names, end = _shake_hands(*contexts)
    except ssl.SSLCertVerificationError as error:
        raise TlsError(
            f"{CERTIFICATE} is {files.certificate!r}: {error.verify_message}; give this node a certificate that is valid now, for servers "
            f"and clients, and signed by {AUTHORITY} ({files.authority})."
        ) from error
    except ssl.SSLError as error:
        raise TlsError(f"{CERTIFICATE} is {files.certificate!r}: {error.reason}; give this node another certificate.") from error
    if node_ip is not None and not _is_named(node_ip, names):
        raise TlsError(
            f"{CERTIFICATE} is {files.certificate!r}, which names {', '.join(names) or 'nothing'}, but other nodes reach this one at "
            f"{node_ip}; add that address to the certificate's subjectAltName as IP."
        )
    return end


async def greet(env: Environment, head: Address) -> None:
    """A handshake with the head's Ray, as this node's Ray would do it; the head may take a moment to listen. Nothing without TLS.

    Raises:
        TlsError: one side refuses the other's certificate.
        UnavailableError: nothing listens there, or it is silent.
    """
    files = given(env)
    if files is None:
        return
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.set_alpn_protocols(["h2"])
    deadline = time.monotonic() + GREETING_S
    while True:
        try:
            names = await asyncio.wait_for(_names_of(head, context), GREETING_S)
            break
        except ssl.SSLCertVerificationError as error:
            raise TlsError(
                f"the head at {head} has a certificate that this node refuses ({error.verify_message}); "
                f"give all nodes certificates of one authority, and {AUTHORITY} with it."
            ) from error
        except (ssl.SSLError, asyncio.IncompleteReadError) as error:
            said = error.reason if isinstance(error, ssl.SSLError) else "it closed the connection"
            raise TlsError(
                f"the head at {head} refuses this node's certificate ({said}); give all nodes certificates of one authority, "
                f"and {AUTHORITY} with it."
            ) from error
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            if time.monotonic() > deadline:
                raise UnavailableError(f"no TLS at {head} after {GREETING_S:.0f} s: {str(error) or type(error).__name__}.") from error
        await asyncio.sleep(POLL_S)
    if not _is_named(head.host, names):
        raise TlsError(
            f"the head's certificate names {', '.join(names) or 'nothing'}, but this node reaches it as {head.host}; "
            "add that to the certificate's subjectAltName, or name the head otherwise in RSCAI_HEAD_ADDRESS."
        )


async def _names_of(head: Address, context: ssl.SSLContext) -> list[str]:
    """What the head's certificate names. Its own verdict on ours arrives after the handshake, instead of its first answer."""
    reader, writer = await asyncio.open_connection(head.host, head.port, ssl=context)
    try:
        writer.write(_HELLO)
        await reader.readexactly(1)
        return _names(writer.get_extra_info("ssl_object"))
    finally:
        writer.close()


def _read(files: Files) -> None:
    for name, path in zip(_HOLD, (files.certificate, files.key, files.authority), strict=True):
        mark, what = _HOLD[name]
        try:
            with open(path, "rb") as file:
                found = mark in file.read()
        except OSError as error:
            raise TlsError(f"{name} is {path!r}: {error.strerror}; mount {what} there, readable for uid {os.getuid()}.") from error
        if not found:
            raise TlsError(f"{name} is {path!r}, which is no PEM file with {what}; put it there.")


def _context(purpose: int, files: Files) -> ssl.SSLContext:
    made = ssl.SSLContext(purpose)
    made.check_hostname = False  # names are looked at apart: gRPC also takes an address that stands there as a name
    made.verify_mode = ssl.CERT_REQUIRED
    try:
        made.load_verify_locations(files.authority)
    except ssl.SSLError as error:
        raise TlsError(f"{AUTHORITY} is {files.authority!r}, which cannot be read as a certificate ({error.reason}); renew it.") from error
    try:
        made.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except ssl.SSLError as error:
        raise TlsError(
            f"{KEY} is {files.key!r}, which does not go with {CERTIFICATE} ({files.certificate}): {error.reason}; "
            "give both of one pair, the key without a passphrase."
        ) from error
    return made


def _shake_hands(as_client: ssl.SSLContext, as_server: ssl.SSLContext) -> tuple[list[str], float]:
    """What the certificate names, and when it ends, as a client sees it once each side has verified the other; in memory.

    Raises:
        ssl.SSLError: one side refuses the other.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = as_client.wrap_bio(down, up), as_server.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    seen: dict[str, Any] = client.getpeercert() or {}
    return _names(client), float(ssl.cert_time_to_seconds(seen["notAfter"]))


def _names(side: ssl.SSLObject) -> list[str]:
    seen: dict[str, Any] = side.getpeercert() or {}
    return [value for _, value in seen.get("subjectAltName", ())]


def _is_named(host: str, names: list[str]) -> bool:
    """As gRPC sees it: an address may stand there as a name, too, and a star for the first part of a name."""
    ip = address.literal_ip(host)
    if ip is not None:
        return any(address.literal_ip(name) == ip for name in names)
    wanted, asked = [name.lower() for name in names], host.lower().rstrip(".")
    return asked in wanted or f"*.{asked.partition('.')[2]}" in wanted
