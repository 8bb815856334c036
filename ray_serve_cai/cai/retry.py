"""When a request to the platform is made again, and after which pause. Pure but for the random spread of pauses."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime

import httpx

ATTEMPTS = 6
LONGEST_S = 30.0
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE"})
"""PATCH too: this API's changes name the values that are to be."""
PASSING = frozenset({500, 502, 503, 504})


HOPELESS = ("CERTIFICATE_VERIFY_FAILED", "Name or service not known", "No address associated", "nodename nor servname", "name resolution")
"""What a connection ends with that another attempt does not change."""


def again(*, twice: bool, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
    """Seconds to wait before the next attempt, or None where there is none to be.

    429 means that nothing was done, so it is safe for every method; so is a connection that was never made. After anything else that may
    pass, only what can be done twice is done again.

    Args:
        twice: whether doing it twice is no harm.
        attempt: counts from 1.
    """
    if attempt >= ATTEMPTS or isinstance(outcome, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        return None
    if isinstance(outcome, httpx.TransportError) and any(word in str(outcome) for word in HOPELESS):
        return None
    if isinstance(outcome, httpx.Response):
        if outcome.status_code != 429 and not (outcome.status_code in PASSING and twice):
            return None
        if (told := _retry_after(outcome)) is not None:
            return min(told, LONGEST_S)
    elif not twice and not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout):
        return None
    return min(0.5 * 2.0 ** (attempt - 1), LONGEST_S) * random.uniform(0.5, 1.0)


def _retry_after(response: httpx.Response) -> float | None:
    """The header Retry-After in seconds, whichever of its two forms it has (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        asked, here = parsedate_to_datetime(value), parsedate_to_datetime(response.headers["Date"])
        return max(0.0, (asked - here).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None
