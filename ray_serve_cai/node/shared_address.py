"""The front door's rules for an address that several models share, in HAProxy's words: which model is asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ray_serve_cai.node import access
from ray_serve_cai.state import models_path

BUFFER = 1 << 16
"""Bytes of a request, with its headers, that HAProxy holds: what it can read, and send once more."""
READABLE_BYTES = BUFFER - 5536
"""Largest body of which it reads the model; the headers have to fit beside it."""


def by_path(models: Sequence[str]) -> str:
    """Rules that send each model but the first what is asked below its own path."""
    paths = [models_path(name) for name in models]
    return "".join(
        f"    use_backend model{number} if {{ path {path} }} || {{ path_beg {path}/ }}\n" for number, path in enumerate(paths) if number
    )


READ_MODEL = f"""    acl has_body method POST PUT PATCH DELETE
    acl upgrades req.hdr(upgrade) -m found
    http-request wait-for-body time 60s at-least {READABLE_BYTES} if has_body
    http-request set-var(txn.model) req.body,json_query('$.model') if has_body
    http-request set-var(txn.model) url_param(model) if upgrades
"""


def by_body(models: Sequence[str]) -> str:
    """Rules for an address that models share: a request's ``model`` says whose it is.

    Where HAProxy has read it, no other program stands in the way. The gateway gets what is too long, is no JSON, or names something
    else; and the list of models. What has no body goes to the first model.
    """
    named = "".join(
        f"    use_backend model{number} if {{ var(txn.model) -m str {name} }} {{ req.body_size le {READABLE_BYTES} }}\n"
        for number, name in enumerate(models)
    )
    return f"""    use_backend model0 if {{ var(txn.own) -m bool }}
{named}    use_backend gateway if {{ path /v1/models }} || {{ path_beg /v1/models/ }}
    use_backend gateway if has_body !upgrades
"""


def within(models: Sequence[str], gateway: Path, listener: Path, *, keys: bool) -> str:
    """The gateway, and the listener at which it finds each model below its own path, as everybody does."""
    own = models_path(models[0])
    user = f"    http-request set-var(txn.user) req.hdr({access.HEADER})\n" if keys else ""
    return f"""frontend models
    bind unix@{listener} mode 600
    http-request set-var(txn.id) req.hdr(x-request-id)
{user}    http-request replace-path {own}(/.*) \\1 if {{ path_beg {own}/ }}
{by_path(models)}    default_backend model0
backend gateway
    server gateway unix@{gateway}
"""
