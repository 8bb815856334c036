"""Where the platform is and who asks: command line before environment before file."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from ray_serve_cai.errors import ConfigError, UsageError, one_line

VARIABLES: dict[str, tuple[str, ...]] = {
    "host": ("CML_HOST", "CDSW_API_URL", "CDSW_DOMAIN"),
    "api_key": ("CML_API_KEY", "CDSW_APIV2_KEY"),
    "project_id": ("CDSW_PROJECT_ID",),
    "ca_bundle": ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
}
"""Setting -> the environment variables that give it, the first that is set counts. The platform sets CDSW_* in every session."""
TOLD = {
    "host": "the workspace's address, for example https://ml-0123.example.com",
    "api_key": "an API v2 key of yours (user settings, API keys)",
    "project_id": "the project's id (project settings)",
}


@dataclass(frozen=True)
class Settings:
    """What a client needs.

    Attributes:
        host: the workspace, ``https://HOST`` or ``http://HOST:PORT`` without a path.
        api_key: an API v2 key.
        project_id: the project in which applications are made.
        ca_bundle: PEM file of the authorities to trust, or None for those of the system.
        application_key: a key of the audience Application, with which the platform lets calls through to applications.
    """

    host: str
    api_key: SecretStr
    project_id: str
    ca_bundle: Path | None = None
    application_key: SecretStr | None = None

    def trust(self) -> ssl.SSLContext | bool:
        """What certificates are checked against.

        Raises:
            ConfigError: the CA bundle holds none.
        """
        if self.ca_bundle is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.ca_bundle))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the CA bundle '{self.ca_bundle}' cannot be used ({one_line(error)}); name a PEM file of authorities."
            ) from error

    @property
    def domain(self) -> str:
        """What applications' subdomains stand before."""
        return urlsplit(self.host).netloc


def settings(options: Mapping[str, str | None], env: Mapping[str, str], file: Mapping[str, str | None]) -> Settings:
    """The settings, each from the first place that has it.

    Raises:
        UsageError: one is missing, or the address is none.
        ConfigError: the CA bundle is not there.
    """
    found = {name: _first(name, options, env, file) for name in VARIABLES}
    missing = [f"{name}: set {' or '.join(VARIABLES[name])} to {told}" for name, told in TOLD.items() if not found[name]]
    if missing:
        raise UsageError(f"Cloudera AI is not known here: {'; '.join(missing)}.")
    key = (found["api_key"] or "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(
            "the API key has characters that no key has; copy it anew (user settings, API keys) and set CML_API_KEY to that alone."
        )
    bundle = Path(found["ca_bundle"]) if found["ca_bundle"] else None
    if bundle and not bundle.is_file():
        raise ConfigError(f"the CA bundle '{bundle}' is not there; correct REQUESTS_CA_BUNDLE, or unset it.")
    application_key = env.get("CML_APPLICATION_KEY", "").strip()
    passes = SecretStr(application_key) if application_key else None
    return Settings(_address(found["host"] or ""), SecretStr(key), found["project_id"] or "", bundle, passes)


def _first(name: str, options: Mapping[str, str | None], env: Mapping[str, str], file: Mapping[str, str | None]) -> str | None:
    if given := options.get(name):
        return given
    given = next((env[variable] for variable in VARIABLES[name] if env.get(variable)), None)
    return given or file.get(name)


def _address(host: str) -> str:
    """The workspace without a path: CDSW_API_URL has one, CDSW_DOMAIN has no scheme.

    Raises:
        UsageError: it is no address.
    """
    parts = urlsplit(host if "://" in host else f"https://{host}")
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?", parts.netloc):
        shown = re.sub(r"//[^/]*@", "//", host)
        raise UsageError(f"the workspace is {shown!r}; use its address, for example https://ml-0123.example.com.")
    return f"{parts.scheme}://{parts.netloc}"
