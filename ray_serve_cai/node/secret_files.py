"""Secrets that a scheduler mounts as files: a second variable beside each that holds one."""

from __future__ import annotations

from pathlib import Path

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node.environment import Environment, text

SECRETS = {name: f"{name}_FILE" for name in ("RSCAI_TOKEN", "HF_TOKEN", "VLLM_API_KEY", "CML_API_KEY", "CML_APPLICATION_KEY")}
"""Variable -> the one that names a file with its value."""


def read(env: Environment) -> dict[str, str]:
    """The environment with each secret as its variable, and no second one left.

    Raises:
        UsageError: a secret is given in both forms, or its file cannot be read or is empty.
    """
    made = dict(env)
    for name, pointer in SECRETS.items():
        file = text(made, pointer)
        made.pop(pointer, None)
        if file is None:
            continue
        if text(made, name) is not None:
            raise UsageError(f"{name} and {pointer} are both set; unset one of them.")
        try:
            value = Path(file).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "no text"
            raise UsageError(f"{pointer} is {file!r}: {said}; mount the secret there, readable for this user.") from None
        if not value:
            raise UsageError(f"{pointer} is {file!r}, which is empty; write the secret into it.")
        made[name] = value
    return made
