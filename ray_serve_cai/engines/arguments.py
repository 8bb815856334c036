"""An engine's arguments as a mapping -> what the engine's own command line parser makes of them.

An engine's parser knows every argument, type, choice and default of the installed version; nothing of that is repeated here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from ray_serve_cai.errors import ConfigError


def parse(
    parser: argparse.ArgumentParser, words: list[str], arguments: Mapping[str, Any], *, model: str, engine: str
) -> argparse.Namespace:
    """The namespace that the engine's server would have parsed, defaults included.

    Args:
        words: what stands on the command line before the arguments.
        model: served name, for errors.
        engine: the engine as people write it, for errors.

    Raises:
        ConfigError: an unknown argument, with the nearest known one; or a value that the parser refuses.
    """
    where = f"models[{model}].engine_args"
    actions = {action.dest: action for action in parser._actions if action.option_strings and action.dest != "help"}
    line = list(words)
    for key, value in arguments.items():
        if key not in actions:
            near = get_close_matches(key, actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "see the engine's documentation for its arguments."
            raise ConfigError(f"{where}.{key}: {engine} has no such argument; {hint}")
        line += option(actions[key], value)

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{where}: {message}.")

    parser.error = refuse  # type: ignore[method-assign]  # argparse's own way out would end the process
    return parser.parse_args(line)


def option(action: argparse.Action, value: Any) -> list[str]:
    """One argument as words of a command line; None means the engine's default, and so does False for a mere flag."""
    flag = next(name for name in action.option_strings if name.startswith("--"))
    if value is None:
        return []
    if isinstance(value, bool) and action.nargs == 0:
        off = "--no-" + flag[2:]
        return [flag] if value else [off] if off in action.option_strings else []
    if isinstance(value, list) and action.nargs in ("+", "*"):
        return [flag, *(_word(item) for item in value)]
    if isinstance(value, list) and isinstance(action, argparse._AppendAction):
        return [f"{flag}={_word(item)}" for item in value]
    return [f"{flag}={_word(value)}"]


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
