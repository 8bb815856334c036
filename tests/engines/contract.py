"""What is engine-specific about the comparison: the engine's own server, the arguments that both servers get, and what they are asked.

One `Contract` for each engine, in a module of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.engines.shapes import MODEL, Shape

ATTEMPTS = 5
TOLERANCE = 1e-4
MODEL_PATH = f"/opt/ray-serve-cai/models/{MODEL}"


@dataclass(frozen=True)
class Profile:
    """The arguments of a pair of servers, as engine_args names them; ``environment`` is of both."""

    name: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contract:
    """One engine: what the product adds to a user's arguments, its own server's command, profiles and shapes.

    ``start`` comes first on the command line, model included. ``ready`` is the path that answers when that server is ready, and
    ``settle`` are requests that bring both servers into the same state. ``answered_otherwise`` are shapes that the product answers
    in its own way on purpose, each with the reason; ``unsteady`` are shapes that two runs of the engine's own server answer in
    different ways, so that both servers are asked up to `ATTEMPTS` times, and one pair of answers must be equal. ``batched`` are shapes
    whose floats may differ by `TOLERANCE`. ``accepted`` are bad requests, with ``error-`` in their names, that this engine takes.
    ``left_out`` says which generated requests are not compared.
    """

    engine: str
    image: str
    entrypoint: str
    start: tuple[str, ...]
    ready: str
    added: Mapping[str, Any]
    profiles: Mapping[str, Profile]
    shapes: tuple[Shape, ...]
    settle: tuple[str, ...] = ()
    answered_otherwise: Mapping[str, str] = field(default_factory=dict)
    unsteady: Mapping[str, str] = field(default_factory=dict)
    batched: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()
    left_out: Callable[[Shape], bool] = lambda shape: False

    def command(self, profile: Profile, *, port: int) -> list[str]:
        """The command line of the engine's own server, for the demo model and with what the product would have given it."""
        line = [*self.start, "--served-model-name", MODEL, "--host", "0.0.0.0", "--port", str(port)]
        for key, value in {**self.added, **profile.arguments}.items():
            line += words(key, value)
        return line


def words(key: str, value: Any) -> list[str]:
    """One argument on a command line. On purpose not the product's own function: a fault in that one must show."""
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [flag, *value]
    return [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
