"""``python -m ray_serve_cai.launch_cluster``: a Ray cluster on this machine, without containers. A stable command.

It starts and stops Ray; models are then served with `ray_serve_cai.RayBackend`. In a container, ``ray-serve-cai node`` does both.
The commands with ``-cai`` are those of ``ray-serve-cai cai`` under their former names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray_serve_cai import config, logs, ray_processes, ray_session
from ray_serve_cai.commands import cloudera
from ray_serve_cai.config import ClusterConfig
from ray_serve_cai.engines.registry import get_registry
from ray_serve_cai.errors import ConfigError, EngineError, RayServeCaiError, ResourceError, UnavailableError, UsageError
from ray_serve_cai.node import command, discovery, machine
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.ray_environment import child_environment

logger = logging.getLogger(__name__)

START_S = 120
STOP_GRACE_S = 10
POLL_S = 0.25
CAI_S = 1800


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 says that it succeeded, other exit codes follow sysexits.h."""
    told = "\n".join(f"  {name:17} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m ray_serve_cai.launch_cluster",
        description=f"Start, stop and look at a Ray cluster on this machine, or on Cloudera AI.\n\ncommands:\n{told}",
        epilog="example:\n  python -m ray_serve_cai.launch_cluster --config configs/local_cpu.yaml start",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="F", help="YAML file; its section `cluster`, or `cai`, counts (default: no file)")
    parser.add_argument("--json", action="store_true", help="print an object for scripts")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what Ray prints")
    parser.add_argument("command", choices=COMMANDS, help="one of the commands above")
    arguments = parser.parse_args(argv)
    logs.set_up("debug" if arguments.verbose else "warning", "launch_cluster")
    try:
        result = COMMANDS[arguments.command](arguments)
    except RayServeCaiError as error:
        print(f"ray-serve-cai: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if isinstance(result, int):
        return result
    if arguments.json:
        print(json.dumps(result))
    elif arguments.command == "get-address":
        print(result["address"])
    else:
        for key, value in result.items():
            print(f"{key:10} {value}")
    return 0


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start Ray's head here, and return when it answers."""
    given = config.load_cluster(arguments.config) if arguments.config else ClusterConfig.model_validate({})
    here = machine.inspect()
    plan = planned(given, here, os.environ)
    address = str(command.gcs_address(plan, plan.node_ip or ""))
    if ray_session.listens(address):
        raise ResourceError(f"something listens at {address} already; stop it with: python -m ray_serve_cai.launch_cluster stop")
    line = ray_start(given, plan, get_registry().installed())
    logger.debug("%s", " ".join(line))
    env = child_environment(os.environ, 0, here.cpus) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(ray_session.ensure_token())}
    if given.block:
        _run(line, env, None, shown=True)
        return {"status": "ended", "address": address}
    _run(line, env, START_S, shown=arguments.verbose)
    deadline = time.monotonic() + START_S
    while not ray_session.listens(address):
        if time.monotonic() > deadline:
            raise UnavailableError(f"Ray does not listen at {address} after {START_S} s; look into /tmp/ray/session_latest/logs.")
        time.sleep(POLL_S)
    dashboard = {"dashboard": f"http://127.0.0.1:{given.dashboard.port}"} if given.dashboard.enabled else {}
    return {"status": "running", "address": address, **dashboard, "next": f"export RAY_ADDRESS={address} RAY_AUTH_MODE=token"}


def stop(arguments: argparse.Namespace) -> dict[str, Any]:
    """Stop the cluster that was started here last, and return when it is gone; other clusters, and containers, run on."""
    address = ray_session.latest_cluster(os.environ)
    if address is None or not ray_session.listens(address):
        return {"status": "not running"}
    ray_processes.end(address, STOP_GRACE_S)
    if ray_session.listens(address):
        raise EngineError(f"Ray still listens at {address}; it may be another user's, or another machine's: stop it there.")
    return {"status": "stopped", "address": address}


def status(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say whether a cluster runs, with its nodes and resources."""
    address = _running()
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints where the answer belongs
        connection = ray_session.connect(address)
        import ray

        resources = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU", "memory", "object_store_memory")}
        ray_session.disconnect()
    return {"status": "running", "address": connection.address, "nodes": connection.nodes, **resources}


def get_address(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the address of the cluster that runs."""
    return {"address": _running()}


def start_autoscaler(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start a cluster that grows and shrinks, from a file of Ray's cluster launcher (with a `provider` section)."""
    if arguments.config is None:
        raise UsageError("start-autoscaler needs --config with a file of Ray's cluster launcher (provider, auth, available_node_types).")
    data = config.read_yaml(arguments.config)
    if not isinstance(data, dict) or "provider" not in data:
        raise ConfigError(
            f"{arguments.config}: has no `provider` section, so it is no file of Ray's cluster launcher; "
            "write one (docs.ray.io, VM cluster configuration), or use `start` for this machine."
        )
    _run(["ray", "up", "--yes", str(arguments.config)], dict(os.environ), None, shown=True)
    return {"status": "running", "config": str(arguments.config)}


def start_cai(arguments: argparse.Namespace) -> int:
    """Bring up the file's cluster on Cloudera AI, and return when its models answer."""
    return cloudera.up(_of_cloudera(arguments))


def status_cai(arguments: argparse.Namespace) -> int:
    """Show what is there of the file's cluster on Cloudera AI."""
    return cloudera.status(_of_cloudera(arguments))


def stop_cai(arguments: argparse.Namespace) -> int:
    """Delete the file's cluster on Cloudera AI, and return when it is gone."""
    return cloudera.down(_of_cloudera(arguments))


def _of_cloudera(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments of ``ray-serve-cai cai``, whose commands these are."""
    if arguments.config is None:
        raise UsageError(f"{arguments.command} needs --config with a file that has a section `cai`.")
    return argparse.Namespace(file=arguments.config, host=None, project=None, json=arguments.json, timeout=CAI_S)


COMMANDS: dict[str, Callable[[argparse.Namespace], dict[str, Any] | int]] = {
    "start": start,
    "stop": stop,
    "status": status,
    "get-address": get_address,
    "start-autoscaler": start_autoscaler,
    "start-cai": start_cai,
    "status-cai": status_cai,
    "stop-cai": stop_cai,
}


def planned(given: ClusterConfig, here: Machine, env: Mapping[str, str]) -> NodePlan:
    """What a node of ours would plan here, with the file's settings; the file has precedence over variables. Pure."""
    asked = {
        "RSCAI_NUM_CPUS": given.resources.num_cpus,
        "RSCAI_NUM_GPUS": given.resources.num_gpus,
        "RSCAI_OBJECT_STORE_BYTES": given.resources.object_store_memory,
    }
    variables = ray_session.own_variables(env) | {name: str(value) for name, value in asked.items() if value is not None}
    plan = discovery.plan({"RSCAI_ROLE": "single"} | variables, here)
    return replace(plan, ports=replace(plan.ports, gcs=given.port, dashboard=given.dashboard.port))


def ray_start(given: ClusterConfig, plan: NodePlan, engines: Sequence[str]) -> list[str]:
    """The ``ray start`` line: as a node of ours starts Ray, in the background unless the file says ``block``. Pure."""
    dashboard = "true" if given.dashboard.enabled else "false"
    line = [
        f"--include-dashboard={dashboard}" if word.startswith("--include-dashboard=") else word
        for word in command.ray_start(plan, engines, plan.node_ip)
    ]
    return line if given.block else [word for word in line if word != "--block"]


def _running() -> str:
    address = ray_session.running(os.environ)
    if address is None:
        raise UnavailableError("no Ray cluster runs on this machine; start one: python -m ray_serve_cai.launch_cluster start")
    return address


def _run(line: Sequence[str], env: Mapping[str, str], timeout_s: float | None, *, shown: bool) -> None:
    """Run one of Ray's commands, of the Python that runs this, to its end.

    Raises:
        EngineError: it failed; with the last thing it said.
        UnavailableError: it did not end in time.
    """
    beside = Path(sys.executable).parent / line[0]
    line = [str(beside) if beside.exists() else line[0], *line[1:]]
    try:
        done = subprocess.run(
            line,
            env=dict(env),
            timeout=timeout_s,
            check=False,
            text=True,
            stdout=None if shown else subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except FileNotFoundError as error:
        raise EngineError(f"{line[0]} is not installed here; pip install ray-serve-cai brings it.") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{Path(line[0]).name} {line[1]} did not end within {timeout_s:.0f} s.") from error
    if done.returncode:
        said = [text for text in (done.stdout or "").splitlines() if text.strip()]
        raise EngineError(f"{Path(line[0]).name} {line[1]} failed with exit code {done.returncode}: {' '.join(said[-3:])[:600]}")


if __name__ == "__main__":
    sys.exit(main())
