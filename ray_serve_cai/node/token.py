"""The cluster token: given by a variable, or made by the head in a file that workers read through a volume."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ray_serve_cai import private_file
from ray_serve_cai.errors import TokenError, UsageError
from ray_serve_cai.node.environment import Environment, text

VARIABLE = "RSCAI_TOKEN"
FILE = "token"
_MINIMUM = 16


def given(env: Environment) -> str | None:
    """The token of the environment.

    Raises:
        UsageError: it is too short to be a secret, or cannot be sent in a header.
    """
    token = text(env, VARIABLE)
    if token is not None and (len(token) < _MINIMUM or not token.isascii() or not token.isalnum()):
        fact = f"{VARIABLE}, or what its file holds, is unusable"
        raise UsageError(f"{fact}; use at least {_MINIMUM} letters and digits, for example from `openssl rand -hex 24`.")
    return token


def read(state_dir: Path) -> str | None:
    """The token in the state directory, or None while there is none.

    Raises:
        TokenError: the file is there but this user cannot read it.
    """
    file = state_dir / FILE
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise TokenError(f"{file} is no token file ({error}); remove it.") from error
    except PermissionError as error:
        raise TokenError(
            f"token file {file} is not readable for uid {os.getuid()}; run all nodes with the same user or group 0."
        ) from error


def make(state_dir: Path) -> str:
    """The token of the state directory, made where there is none yet; readable for owner and group only."""
    kept = read(state_dir)
    if kept:
        return kept
    token = new()
    private_file.write(state_dir / FILE, token, mode=0o640)
    return token


def new() -> str:
    """A token that nobody can guess."""
    return secrets.token_hex(24)
