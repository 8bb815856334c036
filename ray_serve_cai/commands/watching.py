"""What is there: the commands ``health``, ``status`` and ``engines``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from ray_serve_cai.errors import EngineError, UnavailableError, counted

POLL_S = 0.5


def health(arguments: argparse.Namespace) -> int:
    """Exit 0 if healthy."""
    from ray_serve_cai.node import health as node_health

    code, document = node_health.ask("/health" if arguments.live else "/ready")
    if arguments.json:
        print(json.dumps(document))
    elif arguments.live:
        print(f"{document['role']}: {document['phase']}: {document['phase_detail']}")
    else:
        print(f"{document['phase']}: {document['detail']}")
    return 0 if code == 200 else UnavailableError.exit_code


def status(arguments: argparse.Namespace) -> int:
    """Show the state, once or until it is ready."""
    from ray_serve_cai.node import health as node_health

    deadline = time.monotonic() + arguments.timeout
    said = ""
    while True:
        try:
            code, ready = node_health.ask("/ready")
            line = f"{ready['phase']}: {ready['detail']}"
        except UnavailableError as error:
            if not arguments.wait:
                raise
            code, line = 0, str(error)
        if not arguments.wait or code == 200:
            break
        if line.startswith(("failed: ", "refused: ")):
            raise EngineError(line.partition(": ")[2])
        if line != said:
            said = line
            print(line, flush=True)
        if time.monotonic() > deadline:
            raise UnavailableError(f"not ready after {arguments.timeout:.0f} s; last seen: {line.rstrip('.')}.")
        time.sleep(POLL_S)
    document = node_health.ask("/health")[1]
    if arguments.json:
        print(json.dumps(document, indent=2))
        return 0
    print(line)
    for model in document["models"]:
        said = f"; {model['error']}" if model["error"] else ""
        print(f"model {model['name']}: {model['state']}, {model['engine']}, {counted(model['replicas'], 'replica')}{said}")
    if document["role"] != "worker":  # which does not know the others
        print(f"nodes: {document['nodes']['alive']} alive, at least {document['nodes']['expected']} wanted")
        for ip, reason in document["nodes"]["refused"].items():
            print(f"refused: {ip}: {reason}")
    return 0


def engines(arguments: argparse.Namespace) -> int:
    """List what is registered."""
    from ray_serve_cai.engines.registry import get_registry

    registry = get_registry()
    rows = [
        {
            "name": name,
            "description": registry.get(name).description,
            "from": registry.brought_by(name),
            "installed": registry.installed_version(name),
            "install": registry.get(name).install,
            "default": name == registry.get_default_engine(),
            "error": "",
        }
        for name in registry.list_engines()
    ]
    rows += [
        {"name": name, "description": "", "from": from_, "installed": None, "install": "", "default": False, "error": reason}
        for name, (reason, from_) in sorted(registry.broken().items())
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:12} {_engine(row)}")
    return 0


def _engine(row: Mapping[str, Any]) -> str:
    """One engine as people read it."""
    from ray_serve_cai.engines.registry import BUILT_IN

    origin = "built in" if row["from"] == BUILT_IN else f"from {row['from'] or 'an unknown distribution'}"
    if row["error"]:
        return f"broken: {row['error']} ({origin})"
    state = f"installed, {row['installed']}" if row["installed"] else f"not installed: {row['install']}"
    return f"{row['description']} ({origin}; {state})" + (" [default]" if row["default"] else "")
