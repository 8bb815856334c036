"""What every Ray process of a node must have in its environment, whoever starts it."""

from __future__ import annotations

from collections.abc import Iterable

from ray_serve_cai.node import token
from ray_serve_cai.node.environment import Environment

RAY_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_initial_delay_ms": "2000",
}
"""HAProxy as ingress, the engine on the replica's main loop, no usage statistics, a dead node noticed within seconds.

Ray gives its workers the niceness 15, so that batch work does not disturb a machine's user. Here a worker is a replica, and what
competes with it is its own clients' proxy: on two full cores, niceness 0 gave 9 % more tokens per second (docs/decisions/0003).
A stopping replica stays for 30 s unless told otherwise, for load balancers to forget it; the only ones here are Serve's own
HAProxies, which are told at once. Streams that run may still take the replica's whole grace.
"""


OF_THIS_PROCESS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "ROLE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RAY_ADDRESS"),
)
"""By which a scheduler gave this process its place: an engine would take them for the places of its own ranks, and Ray for its cluster."""


def proxy_threads(cpus: int) -> int:
    """Threads for one HAProxy: what a node can spare.

    On two full cores one thread instead of Ray's four gave 11 % more tokens per second (docs/decisions/0003).
    """
    return max(1, min(4, cpus // 2))


PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def without_proxy(env: Environment, addresses: Iterable[str]) -> dict[str, str]:
    """NO_PROXY for what a node says to itself and to ``addresses``, where there is a proxy; what was given is kept.

    Docker puts the proxies of its client's configuration into every container. Both spellings are set: clients differ in which they read,
    and httpx knows no ranges of addresses, so these are named one by one.
    """
    if not any(env.get(name) for name in PROXIES):
        return {}
    given = [host.strip() for name in ("NO_PROXY", "no_proxy") for host in env.get(name, "").split(",")]
    direct = ",".join(dict.fromkeys(host for host in (*given, *LOOPBACK, *addresses) if host))
    return {"NO_PROXY": direct, "no_proxy": direct}


def child_environment(env: Environment, drain_s: int, cpus: int, addresses: Iterable[str] = ()) -> dict[str, str]:
    """The environment of Ray and serving: the given one without the token and a scheduler's ranks, and what must hold on every node.

    ``addresses`` are the cluster's own, which no proxy comes between. Variables of the hub that are empty are not kept: huggingface_hub
    takes an empty HF_ENDPOINT for an address (its constants.py, 2.4.0).
    """
    dropped = (token.VARIABLE, "RAY_AUTH_TOKEN", *OF_THIS_PROCESS)
    kept = {name: value for name, value in env.items() if name not in dropped and (value or not name.startswith("HF_"))}
    proxy = {
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(max(drain_s, 120)),
        "RAY_SERVE_HAPROXY_NBTHREAD": env.get("RAY_SERVE_HAPROXY_NBTHREAD") or str(proxy_threads(cpus)),
    }
    return kept | RAY_ENVIRONMENT | proxy | without_proxy(env, addresses) | {"PYTHONUNBUFFERED": "1"}
