"""What a cluster's head says at its public address.

The platform asks who calls unless the application lets everybody in: an API key of the audience "Application" passes as a bearer token, and
a call without one is answered with a redirect to a login page. A session of the project can read what the head writes there; elsewhere
the platform's status has to do.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ray_serve_cai.cai.config import CaiConfig
from ray_serve_cai.cai.settings import Settings
from ray_serve_cai.errors import one_line

TIMEOUT = httpx.Timeout(15, connect=10)
FRESH_S = 60.0
"""What a head wrote before that is of a former life."""
BEHIND_LOGIN = frozenset({301, 302, 303, 307, 308, 401, 403})


@dataclass(frozen=True)
class Seen:
    """One look at a head.

    Attributes:
        status: the node's own word, ``ok``, ``degraded``, ``starting``, ``stopping`` or ``failed``; ``unseen`` behind a login;
            ``silent`` where no node answers.
        line: for people.
        document: what it answered.
    """

    status: str
    line: str
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The names of what it serves."""
        return [str(model.get("name")) for model in self.document.get("models") or [] if isinstance(model, dict)]

    @property
    def nodes(self) -> int:
        """How many nodes the head's cluster has."""
        nodes = self.document.get("nodes")
        alive = nodes.get("alive") if isinstance(nodes, dict) else 0
        return alive if isinstance(alive, int) else 0


def address(settings: Settings, subdomain: str) -> str:
    """Where an application answers."""
    return settings.host.replace(settings.domain, f"{subdomain}.{settings.domain}")


def told_in(cai: CaiConfig) -> Path:
    """Where in the project a head writes what it says of itself; a session of the project can read it."""
    return told_at(cai.mounted, cai.name)


def told_at(directory: Path, cluster: str) -> Path:
    """The same, of a node that knows its directory."""
    return directory / f"{cluster}.health.json"


def look(
    settings: Settings, url: str, *, platform_asks: bool, told: Path | None = None, transport: httpx.BaseTransport | None = None
) -> Seen:
    """Ask a head how it is.

    Args:
        url: see `address`.
        platform_asks: whether the platform wants to know who calls. `Settings.application_key` is sent then, and the API key never is:
            whoever can change an application could read it there.
        told: where the head writes the same, for where the platform lets nobody through.
    """
    key = settings.application_key.get_secret_value() if settings.application_key and platform_asks else ""
    try:
        with httpx.Client(timeout=TIMEOUT, verify=settings.trust(), transport=transport, follow_redirects=False) as client:
            answer = client.get(f"{url}/health", headers={"Authorization": f"Bearer {key}"} if key else {})
    except httpx.HTTPError as error:
        return Seen("silent", f"{url} does not answer: {one_line(error) or type(error).__name__}")
    if answer.status_code in BEHIND_LOGIN:
        written = _written(told) if told else None
        unseen = f"{url} asks who you are; open it in a browser, or set CML_APPLICATION_KEY to a key of the audience Application"
        return _seen(written) or Seen("unseen", unseen)
    try:
        document = answer.json()
    except ValueError:
        document = None
    return _seen(document) or Seen("silent", f"{url} answers {answer.status_code}, and not as a head of ours")


def _seen(document: Any) -> Seen | None:
    try:
        return Seen(str(document["status"]), f"{document['phase']}: {document['phase_detail']}", document)
    except (TypeError, KeyError):
        return None


def _written(file: Path) -> Any:
    """What the head wrote, if it did so lately."""
    try:
        if time.time() - file.stat().st_mtime > FRESH_S:
            return None
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
