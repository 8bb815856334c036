"""Reading typed values out of an environment. An empty value counts as not set, as Compose passes it."""

from __future__ import annotations

from collections.abc import Mapping

from ray_serve_cai.errors import UsageError

Environment = Mapping[str, str]


def text(env: Environment, name: str, default: str | None = None) -> str | None:
    """The value of ``name`` without surrounding blanks, or ``default`` where it is missing or empty."""
    return env.get(name, "").strip() or default


def choice(env: Environment, name: str, options: tuple[str, ...], default: str) -> str:
    """One of ``options``, case-insensitive.

    Raises:
        UsageError: the value is none of them.
    """
    raw = text(env, name)
    if raw is None:
        return default
    if raw.lower() not in options:
        raise UsageError(f"{name} is {raw!r}; use {', '.join(options[:-1])} or {options[-1]}.")
    return raw.lower()


def integer(env: Environment, name: str, *, low: int, high: int) -> int | None:
    """A whole number from ``low`` to ``high``, or None where the variable is not set.

    Raises:
        UsageError: it is no whole number, or outside the range.
    """
    raw = text(env, name)
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 19 and low <= int(raw) <= high):
        raise UsageError(f"{name} is {raw!r}; use a whole number from {low} to {high}.")
    return int(raw)


def flag(env: Environment, name: str) -> bool:
    """True for 1, true, yes, on; False for 0, false, no, off and where the variable is not set."""
    on, off = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
    return choice(env, name, (*on, *off), "0") in on
