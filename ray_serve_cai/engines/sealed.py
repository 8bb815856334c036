"""Engine arguments that are secrets travel by reference: Serve writes an application's arguments to its log and shows them in its API.

The value waits in the cluster's own key-value store, which only who has the cluster token reaches; the replica takes it from there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any

from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import EngineError

_NAMESPACE = b"ray-serve-cai/secrets"
_SECRET = re.compile(r"(^|_)(api_key|token|password|secret)$")
_MARK = "sealed"
_SALT = secrets.token_bytes(32)
"""Equal values get equal references as long as this process lives, and so start no replica anew; nobody can try values."""


def is_secret(argument: str) -> bool:
    """Whether an engine argument of this name is never to be shown."""
    return bool(_SECRET.search(argument))


def seal(config: EngineConfig, put: Callable[[str, str], None]) -> EngineConfig:
    """With references in place of secrets; ``put`` takes reference and value. Another distribution's deployment gets them as they are."""
    if not config.changes_in_place:
        return config
    return config.model_copy(update={"arguments": {name: _sealed(name, value, put) for name, value in config.arguments.items()}})


def _sealed(name: str, value: Any, put: Callable[[str, str], None]) -> Any:
    if isinstance(value, list):
        return [_sealed(name, one, put) for one in value]
    if not isinstance(value, str) or not is_secret(name):
        return value
    reference = hmac.new(_SALT, value.encode(), hashlib.sha256).hexdigest()
    put(reference, value)
    return {_MARK: reference}


def unseal(config: EngineConfig, get: Callable[[str], str | None]) -> EngineConfig:
    """With the secrets again.

    Raises:
        EngineError: the store has lost one.
    """
    return config.model_copy(update={"arguments": {name: _unsealed(name, value, get) for name, value in config.arguments.items()}})


def _unsealed(name: str, value: Any, get: Callable[[str], str | None]) -> Any:
    if isinstance(value, list):
        return [_unsealed(name, one, get) for one in value]
    if not (isinstance(value, dict) and set(value) == {_MARK} and is_secret(name)):
        return value
    found = get(value[_MARK])
    if found is None:
        raise EngineError(f"engine_args.{name}: its value is not in the cluster's store any more; start the head anew.")
    return found


def values(config: EngineConfig) -> list[str]:
    """The secrets among the arguments, unsealed as they are."""
    found = []
    for name, value in config.arguments.items():
        if is_secret(name):
            found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]
    return found


def put(reference: str, value: str) -> None:
    """Store a value; needs a Ray connection."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(reference.encode(), value.encode(), namespace=_NAMESPACE)


def get(reference: str) -> str | None:
    """A stored value; needs a Ray connection."""
    from ray.experimental.internal_kv import _internal_kv_get

    raw = _internal_kv_get(reference.encode(), namespace=_NAMESPACE)
    return raw.decode() if raw else None
