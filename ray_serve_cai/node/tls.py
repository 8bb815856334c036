"""TLS between nodes: Ray's own variables for its gRPC channels, and whether peers would accept what they name.

Each process of a node is server and client with one certificate, and each side verifies the other (ray/_common/tls_utils.py). What is
found here would otherwise be a cluster that hangs: gRPC tries again for ever and logs nothing that says why.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Any

from ray_serve_cai.errors import TlsError, UsageError
from ray_serve_cai.node.environment import Environment, choice, text

SWITCH = "RAY_USE_TLS"
CERTIFICATE, KEY, AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"
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
    if node_ip is not None and not any(_same(name, node_ip) for name in names):
        said = ", ".join(names) or "nothing"
        raise TlsError(
            f"{CERTIFICATE} is {files.certificate!r}, which names {said}, but other nodes reach this one at {node_ip}; "
            "add that address to the certificate's subjectAltName as IP."
        )
    return end


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
    return [value for _, value in seen.get("subjectAltName", ())], float(ssl.cert_time_to_seconds(seen["notAfter"]))


def _same(name: str, ip: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(ip)
    except ValueError:
        return False
