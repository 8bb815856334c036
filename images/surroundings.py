"""What the machine that builds brings: a CA bundle, indexes, an archive, wheels, or a wheelhouse that stands in for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from images.build_errors import BuildError

CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
"""The first that is set counts."""
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
"""Also in capital letters; small ones go before them, as for curl."""


@dataclass(frozen=True)
class Surroundings:
    """What this machine brings to a build; a wheelhouse goes before all else."""

    ca: Path | None = None
    index: str | None = None
    extra: tuple[str, ...] = ()
    """Indexes besides, which stand in for PyTorch's own."""
    wheels: Path | None = None
    apt: str | None = None
    """The apt sources to use, with CODENAME for the release."""
    wheelhouse: Path | None = None
    proxies: tuple[tuple[str, str], ...] = ()
    """Variables of the steps, in small letters and in capitals: Docker's own settings may have either, and these go before them."""
    left_out: tuple[str, ...] = ()
    """Proxies that a step cannot reach."""


def for_cuda(around: Surroundings) -> Surroundings:
    """What of it counts for CUDA images.

    They go without wheels and further indexes: those usually hold CPU builds of torch, which any pin of a plain version prefers.
    """
    return replace(around, wheels=None, extra=())


def files(around: Surroundings) -> dict[str, str]:
    """The settings that reach the build as secrets, since they may hold passwords: by file name, which is the secret's, too."""
    pip, uv = [], []
    if around.index:
        pip.append(f"index-url = {around.index}")
        uv.append(f'[[index]]\nurl = "{around.index}"\ndefault = true')
    if around.extra:
        pip.append(f"extra-index-url = {' '.join(around.extra)}")
        uv = ['index-strategy = "unsafe-best-match"', *uv, *(f'[[index]]\nurl = "{url}"' for url in around.extra)]
    made = {"pip.conf": ["[global]", *pip], "uv.toml": uv} if uv else {}
    if around.apt:
        made["apt.list"] = [around.apt]
    return {name: "\n".join(lines) + "\n" for name, lines in made.items()}


def ca_bundle(environment: Mapping[str, str]) -> Path | None:
    """The CA bundle that this machine was told to use, for builds behind a proxy that opens TLS.

    Raises:
        BuildError: it cannot be read, or is none.
    """
    name = next((name for name in CA_VARIABLES if environment.get(name)), None)
    if not name:
        return None
    bundle, fix = Path(environment[name]), "name a CA bundle, or unset it."
    try:
        text = bundle.read_text(errors="replace")
    except OSError as error:
        raise BuildError(f"{name} is '{bundle}', which cannot be read ({error.strerror}); {fix}", 66) from error
    if "-----BEGIN CERTIFICATE-----" not in text and "-----BEGIN TRUSTED CERTIFICATE-----" not in text:
        raise BuildError(f"{name} is '{bundle}', which holds no certificate in PEM form; {fix}", 66)
    return bundle


def surroundings(environment: Mapping[str, str], pip: Mapping[str, str]) -> Surroundings:
    """What the environment and pip's settings, under uv's names, say of this machine.

    Raises:
        BuildError: a CA bundle or a wheelhouse is named and is none.
    """
    found = proxies(environment)
    left_out = [name for name, value in found.items() if name != "no_proxy" and is_local(value)]
    wheels = [Path(place) for place in pip.get("UV_FIND_LINKS", "").split() if Path(place).is_dir()]
    return Surroundings(
        ca=ca_bundle(environment),
        index=pip.get("UV_DEFAULT_INDEX"),
        extra=tuple(pip.get("UV_INDEX", "").split()),
        wheels=wheels[0] if wheels else None,
        apt=apt_sources(environment),
        wheelhouse=Path(environment["WHEELHOUSE"]).resolve() if environment.get("WHEELHOUSE") else None,
        proxies=tuple((spelled, value) for name, value in found.items() if name not in left_out for spelled in (name, name.upper())),
        left_out=tuple(left_out),
    )


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxies that the environment names, by their names in small letters; nothing where there is only an exception from none."""
    found = {name: environment.get(name) or environment.get(name.upper(), "") for name in PROXIES}
    return {name: value for name, value in found.items() if value} if found["http_proxy"] or found["https_proxy"] else {}


def is_local(proxy: str) -> bool:
    """Whether a proxy is one of this machine alone: a step of a build has another localhost."""
    host = urlsplit(proxy if "//" in proxy else f"//{proxy}").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def apt_sources(environment: Mapping[str, str]) -> str | None:
    """The apt sources that DEBIAN_MIRROR stands for; security updates are beside it unless DEBIAN_SECURITY_MIRROR says where (or nowhere).

    Raises:
        BuildError: it is no address.
    """
    mirror = environment.get("DEBIAN_MIRROR", "").rstrip("/")
    if not mirror:
        return None
    security = environment.get("DEBIAN_SECURITY_MIRROR", f"{mirror}-security").rstrip("/")
    for name, url in (("DEBIAN_MIRROR", mirror), ("DEBIAN_SECURITY_MIRROR", security)):
        if url and not re.match(r"https?://[^/\s]+\S*$", url):
            raise BuildError(f"{name} is '{without_passwords(url)}'; give an address such as https://mirror.example.com/debian.", 64)
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    lines = [f"deb {keyring} {mirror} {suite} main" for suite in ("CODENAME", "CODENAME-updates")]
    return "\n".join(lines + ([f"deb {keyring} {security} CODENAME-security main"] if security else []))


def without_passwords(text: str) -> str:
    """What somebody may read, of addresses that have a user and a password: apt prints them in its errors."""
    return re.sub(r"//[^/\s]*@", "//", text)
