"""Network addresses as host and port, with IPv6 in brackets wherever the two are joined."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ray_serve_cai.errors import UsageError

GCS_PORT = 6379
_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")


@dataclass(frozen=True)
class Address:
    """A host name or IP literal, and a TCP port."""

    host: str
    port: int = GCS_PORT

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    """The host as it stands in a URL: an IPv6 literal in brackets."""
    return f"[{host}]" if ":" in host else host


def everywhere(ip: str | None) -> str:
    """The address that means all interfaces, for a node that others reach at ``ip``; an IPv6 socket takes IPv4, too."""
    return "::" if ip and ":" in ip else "0.0.0.0"


def loopback(host: str) -> str:
    """Where this machine reaches a listener on ``host``."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def literal_ip(host: str) -> str | None:
    """The canonical form of an IP literal, or None for a name (an IPv6 zone is not supported)."""
    if "%" in host:
        return None
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def parse(variable: str, value: str, default_port: int = GCS_PORT) -> Address:
    """Read ``host``, ``host:port``, ``::1`` or ``[::1]:port``; ``variable`` is named in the error.

    Raises:
        UsageError: the value is no such address.
    """
    wrong = UsageError(f"{variable} is {value!r}; use host or host:port, for example head:{GCS_PORT} or [fd00::1]:{GCS_PORT}.")
    if "/" in value:
        raise wrong
    host, port = value, ""
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise wrong
        port = rest[1:]
        if rest == ":":
            raise wrong
    elif value.count(":") == 1:
        host, _, port = value.partition(":")
        if not port:
            raise wrong
    ip = literal_ip(host)
    if ip is None and not _HOSTNAME.fullmatch(host):
        raise wrong
    if ip is None and re.fullmatch(r"[0-9.]+", host):
        raise wrong
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise UsageError(f"{variable} is {value!r}: {port!r} is no port; use 1 to 65535.")
    return Address(ip or host, int(port) if port else default_port)
