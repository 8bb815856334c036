"""What a cluster's head says at its public address.

The platform asks who calls unless the application lets everybody in: an API key of the audience "Application" passes as a bearer token, and
one without it is answered with a redirect to a login page. Then the head cannot be seen from here, and the platform's status has to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from ray_serve_cai.cai.settings import Settings
from ray_serve_cai.errors import one_line

TIMEOUT = httpx.Timeout(15, connect=10)
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
    scheme, _, domain = settings.host.partition("://")
    return f"{scheme}://{subdomain}.{domain}"


def look(settings: Settings, url: str, *, platform_asks: bool, transport: httpx.BaseTransport | None = None) -> Seen:
    """Ask a head how it is.

    Args:
        url: see `address`.
        platform_asks: whether the platform wants to know who calls; only then is the API key sent.
    """
    headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"} if platform_asks else {}
    verify = str(settings.ca_bundle) if settings.ca_bundle else True
    try:
        with httpx.Client(timeout=TIMEOUT, verify=verify, transport=transport, follow_redirects=False) as client:
            answer = client.get(f"{url}/health", headers=headers)
    except httpx.HTTPError as error:
        return Seen("silent", f"{url} does not answer: {one_line(error) or type(error).__name__}")
    if answer.status_code in BEHIND_LOGIN:
        return Seen("unseen", f"{url} asks who you are; open it in a browser, or use a key of the audience Application")
    try:
        told = answer.json()
        return Seen(str(told["status"]), f"{told['phase']}: {told['phase_detail']}", told)
    except (ValueError, TypeError, KeyError):
        return Seen("silent", f"{url} answers {answer.status_code}, and not as a head of ours")
