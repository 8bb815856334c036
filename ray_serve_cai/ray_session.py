"""This process's connection to Ray: to a cluster that runs, or to one that it starts on this machine."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_serve_cai import private_file
from ray_serve_cai.engines.registry import get_registry
from ray_serve_cai.errors import RayServeCaiError, UnavailableError, UsageError
from ray_serve_cai.node import address as addresses
from ray_serve_cai.node import command, discovery, machine, token
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.ray_environment import RAY_ENVIRONMENT, proxy_threads

Mode = Literal["local", "connected", "already_initialized"]

PROBE_S = 5
LAUNCHER_TOKEN = Path("/tmp/ray-serve-cai/ray-token")
"""Where the launcher of this container keeps the token of its cluster (node/supervisor.py)."""


@dataclass(frozen=True)
class Connection:
    """``mode`` is local where this process started Ray and ends it; ``address`` is host:port of the GCS."""

    mode: Mode
    address: str
    nodes: int


def connect(address: str | None = None) -> Connection:
    """Connect to ``address``, else to RAY_ADDRESS, else to the cluster that runs on this machine, else start one.

    Call it from a thread that lives on: Linux ends the Ray processes that a thread started when that thread ends
    (PR_SET_PDEATHSIG, which Ray uses so that a cluster never outlives its driver).

    Raises:
        UsageError: the address is none.
        UnavailableError: nothing listens there, or Ray refuses this process.
    """
    loaded = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized():
        mode: Mode = "already_initialized"
    else:
        where = running(os.environ, address)
        mode = _start() if where is None else _join(where)
    import ray

    alive = sum(node["Alive"] for node in ray.nodes())
    return Connection(mode, ray.get_runtime_context().gcs_address, alive)


def disconnect() -> None:
    """Leave the cluster; one that this process started ends."""
    import ray

    ray.shutdown()


def _join(where: str) -> Mode:
    loaded = "ray" in sys.modules
    if not loaded:  # Ray reads the mode when it is imported
        use_own_token(os.environ, where, machine.inspect())
    import ray

    # Ray turns token authentication on by itself for the cluster that it finds, and never for one that it is told.
    found = loaded and where == latest_cluster(os.environ) and os.environ.get("RAY_ADDRESS", "").strip() in ("", "auto", where)
    try:
        ray.init(address="auto" if found else where, namespace="ray-serve-cai", log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnavailableError(
            f"Ray at {where} does not let this process in: {reason}. Where the cluster has a token, set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN_PATH to a file that holds it."
        ) from error
    return "connected"


def _start() -> Mode:
    """Start Ray on this machine, with this machine's engines as labels and token authentication."""
    if "ray" not in sys.modules and not os.environ.get("RAY_AUTH_MODE"):  # Ray would make a token file that everybody can read
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(ensure_token())}
    import ray

    here = machine.inspect()
    for name, value in (RAY_ENVIRONMENT | {"RAY_SERVE_HAPROXY_NBTHREAD": str(proxy_threads(here.cpus))}).items():
        os.environ.setdefault(name, value)
    plan = discovery.plan({"RSCAI_ROLE": "single"} | own_variables(os.environ), here)
    resources = plan.resources
    ray.init(
        address="local",
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        object_store_memory=resources.object_store,
        labels=command.node_labels("single", get_registry().installed()),
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        namespace="ray-serve-cai",
        log_to_driver=False,
        logging_level="warning",
        _memory=resources.memory,
        _plasma_directory=resources.plasma_directory,
    )
    return "local"


def own_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that say what this node offers and where it listens, without those that would give it a role."""
    names = ("RSCAI_NUM_CPUS", "RSCAI_NUM_GPUS", "RSCAI_MEMORY_BYTES", "RSCAI_OBJECT_STORE_BYTES", "RSCAI_HOST", "RSCAI_NODE_IP")
    return {name: env[name] for name in names if name in env}


def running(env: Mapping[str, str], address: str | None = None) -> str | None:
    """host:port of the cluster to connect to, None where none is given and none runs here.

    Raises:
        UsageError: the address is none.
        UnavailableError: an address is given, and nothing listens there.
    """
    given = address or env.get("RAY_ADDRESS", "").strip()
    if given == "local":
        return None
    if given and given != "auto":
        if "://" in given:
            raise UsageError(f"Ray address {given!r} is Ray Client's, which Serve cannot use; use host:port, for example 10.0.0.5:6379.")
        where = str(addresses.parse("RAY_ADDRESS" if not address else "address", given))
        if not listens(where):
            raise UnavailableError(f"no Ray cluster answers at {where}; start one there, or unset the address to start one here.")
        return where
    latest = latest_cluster(env)
    if latest is not None and listens(latest):
        return latest
    if given == "auto":
        raise UnavailableError("no Ray cluster runs on this machine; start one, or name the address of another one.")
    return None


def latest_cluster(env: Mapping[str, str]) -> str | None:
    """The cluster that was started last on this machine, running or not; ``ray.init`` documents the file."""
    file = Path(env.get("RAY_TMPDIR") or "/tmp") / "ray/ray_current_cluster"
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


def listens(where: str) -> bool:
    """Whether something accepts connections at host:port."""
    place = addresses.parse("address", where)
    try:
        with socket.create_connection((place.host, place.port), timeout=PROBE_S):
            return True
    except OSError:
        return False


def use_own_token(env: MutableMapping[str, str], where: str, here: Machine) -> None:
    """Turn token authentication on for a cluster of this very machine that this user has the token of.

    Ray does so by itself only where no address is given. Another machine never gets the token unasked.
    """
    if env.get("RAY_AUTH_MODE") or not here.is_me(addresses.parse("address", where).host):
        return
    for file in (LAUNCHER_TOKEN, default_token_file()):
        if os.access(file, os.R_OK):
            env["RAY_AUTH_MODE"] = "token"
            env["RAY_AUTH_TOKEN_PATH"] = str(file)
            return


def default_token_file() -> Path:
    """Where Ray keeps a user's token (docs.ray.io, token authentication)."""
    return Path.home() / ".ray" / "auth_token"


def ensure_token() -> Path:
    """The user's token file, made where there is none.

    Raises:
        RayServeCaiError: it can be neither read nor made.
    """
    file = default_token_file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            private_file.write(file, token.new())
    except OSError as error:
        raise RayServeCaiError(f"{file} cannot be written ({error.strerror}); set HOME to a directory that is this user's.") from error
    return file
