"""What a request to the platform that failed is told as: the request, the platform's own words, the fix. The key is in none of them."""

from __future__ import annotations

import json

import httpx

from ray_serve_cai.errors import (
    PlatformAccessError,
    PlatformDownError,
    PlatformError,
    PlatformMissingError,
    PlatformRefusedError,
    RayServeCaiError,
    one_line,
)

FIXES: dict[int, tuple[type[PlatformError], str]] = {
    401: (PlatformAccessError, "make a new API v2 key (user settings, API keys) and set CML_API_KEY"),
    403: (PlatformAccessError, "use the key of someone who may, or ask an administrator"),
    404: (PlatformMissingError, "check the project id and the name"),
    409: (PlatformRefusedError, "choose another name or subdomain, or remove what has it"),
}
"""Status -> the error and what a person does about it."""


def failure(request: str, outcome: httpx.Response | httpx.TransportError, attempts: int, key: str) -> RayServeCaiError:
    """The error for what a request ended with, after that many attempts; ``key`` is left out of it, whoever says it."""
    error = _failure(request, outcome, attempts)
    return type(error)(str(error).replace(key, "***")) if key else error


def _failure(request: str, outcome: httpx.Response | httpx.TransportError, attempts: int) -> RayServeCaiError:
    tried = f", {attempts} times" if attempts > 1 else ""
    if not isinstance(outcome, httpx.Response):
        what = one_line(outcome) or type(outcome).__name__
        fix = "name its authorities in REQUESTS_CA_BUNDLE" if "CERTIFICATE" in what else "check the address and the network"
        return PlatformDownError(f"{request} got no answer{tried}: {what}; {fix}.")
    status, said = outcome.status_code, message(outcome)
    if status == 429 or status >= 500:
        fix = "ask for less at a time, or later" if status == 429 else "try again; if it stays, ask an administrator"
        return PlatformDownError(f"{request} was answered with {status}{tried}: {said}; {fix}.")
    if 300 <= status < 400:
        return PlatformAccessError(
            f"{request} was sent on to {outcome.headers.get('Location', '')!r} ({status}): a login page? Use the workspace's own address."
        )
    kind, fix = FIXES.get(status, (PlatformRefusedError, "change what is asked for"))
    return kind(f"{request} was refused ({status}): {said}; {fix}.")


def message(response: httpx.Response) -> str:
    """The platform's own words: ``message`` or ``error``, and the details; else the start of what came."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return one_line(ValueError(response.text[:200])) or response.reason_phrase
    said = str(answer.get("message") or answer.get("error") or response.reason_phrase).rstrip(".")
    details = [json.dumps(detail) if isinstance(detail, dict) else str(detail) for detail in answer.get("details") or []]
    return one_line(ValueError("; ".join([said, *details])))
