"""What in an environment is allowed and yet hardly meant. Pure."""

from __future__ import annotations

import difflib
import ipaddress

from ray_serve_cai.node.address import Address, literal_ip
from ray_serve_cai.node.contracts import Role
from ray_serve_cai.node.environment import Environment

PREFIX = "RSCAI_"
KNOWN = frozenset(
    PREFIX + name
    for name in (
        *("ROLE", "HEAD_ADDRESS", "NODE_IP", "MIN_NODES", "MIN_GPUS", "TOKEN", "TOKEN_FILE", "API_KEYS", "API_KEYS_FILE", "STATE_DIR"),
        *("CONFIG", "MODEL", "MODEL_NAME", "ENGINE", "ENGINE_ARGS"),
        *("HOST", "PORT", "PORT_SHARED", "ENGINE_PORTS", "SERVE_PORT", "STATUS_PORT"),
        *("NUM_CPUS", "NUM_GPUS", "MEMORY_BYTES", "OBJECT_STORE_BYTES"),
        *("JOIN_TIMEOUT_S", "DRAIN_S", "HOOKS_DIR", "LOG_FORMAT", "LOG_LEVEL", "TRACEBACK"),
        *("STATE_FILE", "DEPLOYED_FILE"),
        *("CLUSTER", "CLUSTER_SPEC", "CLUSTER_DIR", "CLUSTER_NODE", "CLUSTER_CROSSING", "CLUSTER_WORKERS"),
    )
)
"""The variables of this project, as docs/generate.py explains them."""


def of(env: Environment, role: Role, head: Address | None) -> tuple[str, ...]:
    """A line for each doubt, with the fix; values of variables that nobody knows are not shown."""
    return (*unknown(env), *_unreachable(role, head))


def unknown(env: Environment) -> list[str]:
    """A line for each variable with our prefix that nobody reads."""
    said = []
    for name in sorted(name for name in env if name.startswith(PREFIX) and name not in KNOWN):
        near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.8)
        fix = f"did you mean {near[0]}?" if near else "docs/configuration.md lists those that are."
        said.append(f"{name} is set, and no variable of this name is read; {fix}")
    return said


def _unreachable(role: Role, head: Address | None) -> list[str]:
    if head is None or role not in ("head", "worker"):
        return []
    literal = literal_ip("127.0.0.1" if head.host.lower() == "localhost" else head.host)
    if literal is None or not ipaddress.ip_address(literal).is_loopback:
        return []
    return [f"the head's address is {head}, which no other machine reaches; set RSCAI_HEAD_ADDRESS to one that all nodes reach."]
