"""A replica whose ranks stand on several nodes: one shard for each node but its own, in the replica's placement group.

Ray decides where; the engine's own multi-node mode does the rest. Needs Ray; imports no engine.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import psutil
import ray
from pydantic import SecretStr
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ray_serve_cai import engine_ports
from ray_serve_cai.engines import report
from ray_serve_cai.engines.engine_config import EngineConfig, Seat
from ray_serve_cai.engines.leftovers import end_group
from ray_serve_cai.errors import EngineError, one_line

logger = logging.getLogger("ray.serve")
_SETTINGS = ("VLLM_", "SGLANG_", "NCCL_", "TORCH_")
_OF_A_NODE = ("_IP", "_IFNAME", "_PORT", "_BIND")


def socket_environment(address: str, given: Mapping[str, str]) -> dict[str, str]:
    """Variables by which all ranks talk over the network that Ray uses; what is set already stays.

    Gloo and NCCL would otherwise take the interface of the host's name, or the first one they find.
    """
    interfaces = psutil.net_if_addrs().items()
    name = next((name for name, addresses in interfaces if any(one.address == address for one in addresses)), None)
    wanted = {"VLLM_HOST_IP": address, "SGLANG_HOST_IP": address}
    if name is not None:
        wanted |= {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name, "TP_SOCKET_IFNAME": name}
    return {key: value for key, value in wanted.items() if key not in given}


def shared_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The engine's settings among the variables of rank 0's node, without those that are a node's own."""
    return {key: value for key, value in environment.items() if key.startswith(_SETTINGS) and not key.endswith(_OF_A_NODE)}


class Shard:
    """The engine's ranks on one further node. Its process ends with this actor, whatever ends it."""

    def run(self, config: dict[str, Any], hf_token: SecretStr | None, settings: dict[str, str]) -> Iterator[str]:
        """Run the engine until it ends, and give its log, line by line.

        Args:
            settings: variables of rank 0's node; what is set on this one stays.

        Raises:
            EngineError: it has ended; the last line that it wrote is in the message.
        """
        environment = settings | os.environ | socket_environment(ray.util.get_node_ip_address(), os.environ)
        if hf_token is not None:
            environment["HF_TOKEN"] = hf_token.get_secret_value()
        process = subprocess.Popen(
            [sys.executable, "-m", "ray_serve_cai.engines.shard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
        )
        if process.stdin:
            process.stdin.write(EngineConfig.model_validate(config).model_dump_json() + "\n")
            process.stdin.flush()
        lines = iter(process.stdout or ())
        first = next(lines, "").split()
        process.wait()  # it has left the guardian
        if len(first) != 2:
            raise EngineError(f"the engine's process did not start; {' '.join(first) or 'it did not say why'}")
        guardian, group = map(int, first)
        threading.Thread(target=_after, args=(guardian, group), daemon=True).start()
        said = ""
        for line in lines:
            said = line.strip() if report.raised(line) else said
            yield line.rstrip()
        raise EngineError(f"the engine ended; {said or 'it did not say why'}")


def _after(guardian: int, group: int) -> None:
    """Nothing of the engine stays when its guardian was killed; its log, which all of its processes hold open, ends with them."""
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(guardian)], [], [])
    end_group(group, 0)


class Gang:
    """The shards of one replica, watched by a thread: rank 0 may be busy inside its engine."""

    def __init__(self, config: EngineConfig, lost: Callable[[Exception], None]) -> None:
        """Start a shard on each node but this one.

        Args:
            config: the replica's, with the seat of this node.
            lost: called from another thread when a shard is no more; with an `EngineError` where its engine ended by itself.
        """
        group = get_current_placement_group()
        if group is None:
            where = f"model {config.name!r} spans {config.nodes} nodes"
            raise EngineError(f"{where} and was not placed in a group; deploy it with its factory.")
        self._lost = lost
        # An actor lives as long as somebody holds its handle.
        self._shards = [self._start(config, group, node) for node in range(1, config.nodes)]

    def _start(self, config: EngineConfig, group: PlacementGroup, node: int) -> Any:
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
        options = {"num_cpus": config.share["CPU"], "num_gpus": config.share.get("GPU", 0), "scheduling_strategy": strategy}
        shard = ray.remote(Shard).options(**options).remote()
        seated = config.model_copy(update={"seat": config.seat and config.seat.model_copy(update={"node": node})})
        lines = shard.run.options(num_returns="streaming").remote(seated.model_dump(), config.hf_token, shared_environment(os.environ))
        threading.Thread(target=self._follow, args=(node, lines), name=f"shard-{node}", daemon=True).start()
        return shard

    def _follow(self, node: int, lines: Any) -> None:
        try:
            for line in lines:
                logger.info("node %d: %s", node, ray.get(line))
        except ray.exceptions.RayTaskError as error:
            self._lost(EngineError(f"node {node}: {error.cause or error}"))
        except ray.exceptions.RayError as error:
            self._lost(ConnectionError(f"node {node} is gone: {one_line(error)}"))


def seated(config: EngineConfig) -> tuple[EngineConfig, engine_ports.Lease]:
    """The configuration of rank 0, which waits for the others at an address of this node; the lease is kept while it lives."""
    address, port = ray.util.get_node_ip_address(), engine_ports.lease(os.environ)
    os.environ.update(socket_environment(address, os.environ))
    seat = Seat(node=0, address=address, port=port.port)
    return config.model_copy(update={"seat": seat}), port
