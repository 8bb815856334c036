"""Environment -> NodePlan: which role this container has, where its head is, and all that follows. Pure: sends nothing, starts nothing.

The first row of ``contracts.CONTRACTS`` that recognises the environment decides; the plan names it and the variables it read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from ray_serve_cai import engine_ports
from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import contracts, doubts
from ray_serve_cai.node.address import Address, everywhere, literal_ip
from ray_serve_cai.node.contracts import CONTRACTS, MOST_NODES, Decision, Role
from ray_serve_cai.node.environment import Environment, flag, integer, text
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.ports import Ports

_GIB = 1 << 30
_OBJECT_STORE_FLOOR = 80 << 20
"""Ray refuses an object store under 75 MiB (ray/_private/ray_constants.py, OBJECT_STORE_MINIMUM_MEMORY_BYTES)."""
_OBJECT_STORE_CEILING = 512 << 20
"""Serving moves no tensors through the object store; the rest of /dev/shm belongs to the engine."""


@dataclass(frozen=True)
class Resources:
    """What this node offers to Ray; memory in bytes. ``plasma_directory`` is None for /dev/shm."""

    cpus: int
    gpus: int
    memory: int
    object_store: int
    plasma_directory: str | None


@dataclass(frozen=True)
class NodePlan:
    """Everything the launcher needs to know before it acts.

    ``node_ip`` is None where it depends on resolving the head's name, which a plan does not do; ``doubts`` are what is hardly meant.
    """

    role: Role
    head: Address | None
    node_ip: str | None
    rule: str
    variables: dict[str, str]
    resources: Resources
    ports: Ports
    min_nodes: int
    min_gpus: int
    join_timeout_s: int
    drain_s: int
    host: str
    doubts: tuple[str, ...] = ()
    port_shared: bool = False
    """Whether another program of this user may listen on the front door's port until that is open."""


def plan(env: Environment, machine: Machine) -> NodePlan:
    """Decide the role and everything that follows from it.

    Raises:
        UsageError: a variable has a value that cannot be used; the message names it and the fix.
    """
    try:
        rule, decision = _decide(env, machine)
    except UsageError as error:  # what was meant may stand there under a name that nobody reads
        raise UsageError(" ".join((str(error), *doubts.unknown(env)))) from error
    ports, node_ip = _ports(env, decision), _own_ip(env, decision, machine)
    return NodePlan(
        role=decision.role,
        head=decision.head,
        node_ip=node_ip,
        rule=rule,
        variables=decision.variables,
        resources=_resources(env, machine),
        ports=ports,
        min_nodes=integer(env, "RSCAI_MIN_NODES", low=1, high=MOST_NODES) or decision.nodes or 1,
        min_gpus=integer(env, "RSCAI_MIN_GPUS", low=0, high=MOST_NODES) or 0,
        join_timeout_s=integer(env, "RSCAI_JOIN_TIMEOUT_S", low=1, high=86_400) or 300,
        drain_s=drain_s(env),
        host=_host(env, node_ip),
        doubts=doubts.of(env, decision.role, decision.head),
        port_shared=flag(env, "RSCAI_PORT_SHARED"),
    )


def _decide(env: Environment, machine: Machine) -> tuple[str, Decision]:
    """The contract that decides, and what it found; RSCAI_ROLE ends the search, and of the rest all must agree."""
    found: list[tuple[str, Decision]] = []
    for contract in CONTRACTS:
        if found and contract.decide in (contracts.address_is_mine, contracts.nothing):
            break
        decision = contract.decide(env, machine)
        if decision is None:
            continue
        found.append((contract.name, decision))
        if "RSCAI_ROLE" in decision.variables:
            break
    idle = next((one for one in found if one[1].role == "idle"), None)
    if idle:
        return idle
    wrong = contracts.conflict(found)
    if wrong:
        raise UsageError(f"{wrong}; set RSCAI_ROLE to head, or to worker beside RSCAI_HEAD_ADDRESS.")
    name, decision = found[0]
    given = contracts.head_address(env)
    if len(found) > 1:  # one contract may know what another does not say
        nodes = next((one.nodes for _, one in found if one.nodes), None)
        knows = next((one for _, one in found if one.head), decision)
        read = decision.variables if given else knows.variables | decision.variables
        decision = replace(decision, nodes=nodes, head=knows.head, variables=read)
    return name, _with_head(decision, given, env)


def _with_head(decision: Decision, given: tuple[str, Address] | None, env: Environment) -> Decision:
    """With the address that somebody set for us, which precedes the scheduler's."""
    if decision.role == "single":
        return decision
    if given:
        return replace(decision, head=given[1], variables=decision.variables | {given[0]: env[given[0]].strip()})
    if decision.role == "worker" and decision.head is None:
        raise UsageError(f"this is {decision.said()}, but no head is named; set RSCAI_HEAD_ADDRESS to the head's host or host:port.")
    return decision


def _own_ip(env: Environment, decision: Decision, machine: Machine) -> str | None:
    given = contracts.node_ip(env, machine)
    if given is not None:
        return given
    if decision.role != "worker":
        head_ip = literal_ip(decision.head.host) if decision.head else None
        if head_ip in machine.addresses and head_ip is not None:
            return head_ip
        return machine.primary_ip()
    head = decision.head
    return machine.source_ip(head.host) if head and literal_ip(head.host) else None


def _ports(env: Environment, decision: Decision) -> Ports:
    plan = Ports(
        front_door=integer(env, "RSCAI_PORT", low=1, high=65535) or Ports.front_door,
        serve_http=integer(env, "RSCAI_SERVE_PORT", low=1, high=65535) or Ports.serve_http,
        status=integer(env, "RSCAI_STATUS_PORT", low=1, high=65535) or Ports.status,
        gcs=decision.head.port if decision.head else Ports.gcs,
    )
    first, last = engine_ports.parse(env)
    seen = dict.fromkeys(range(first, last + 1), "the ranks of replicas")
    seen |= dict.fromkeys(range(plan.workers_first, plan.workers_last + 1), "Ray's workers")
    for name, port in plan.listening(decision.role).items():
        if port in seen:
            raise UsageError(
                f"port {port} is wanted for {seen[port]} and for {name}; "
                "change RSCAI_PORT, RSCAI_SERVE_PORT, RSCAI_STATUS_PORT, RSCAI_ENGINE_PORTS or the port of the head's address."
            )
        seen[port] = name
    return plan


def drain_s(env: Environment) -> int:
    """How long running requests may take after SIGTERM, seconds.

    Raises:
        UsageError: as `environment.integer`.
    """
    drain = integer(env, "RSCAI_DRAIN_S", low=0, high=86_400)
    return 60 if drain is None else drain


def _host(env: Environment, node_ip: str | None) -> str:
    value = text(env, "RSCAI_HOST") or everywhere(node_ip)
    host = literal_ip(value.strip("[]"))
    if host is None:
        raise UsageError(f"RSCAI_HOST is {value!r}; use the IP address to listen on, for example 0.0.0.0 or 127.0.0.1.")
    return host


def _resources(env: Environment, machine: Machine) -> Resources:
    shm = machine.shm_bytes
    object_store = integer(env, "RSCAI_OBJECT_STORE_BYTES", low=_OBJECT_STORE_FLOOR, high=1 << 50)
    small = shm < 2 * _OBJECT_STORE_FLOOR
    if object_store is None:
        object_store = _OBJECT_STORE_FLOOR if small else min(shm // 2, _OBJECT_STORE_CEILING)
    given = contracts.kuberay_resources(env)
    engine_cpus, engine_memory = contracts.cloudera_limits(env)
    here, limit = engine_cpus or machine.cpus, min(machine.memory_bytes, engine_memory or machine.memory_bytes)
    cpus = given.get("num-cpus") if (own := integer(env, "RSCAI_NUM_CPUS", low=0, high=100_000)) is None else own
    gpus = given.get("num-gpus") if (own := integer(env, "RSCAI_NUM_GPUS", low=0, high=1024)) is None else own
    memory = integer(env, "RSCAI_MEMORY_BYTES", low=1 << 20, high=1 << 60) or given.get("memory")
    return Resources(
        cpus=here if cpus is None else cpus,
        gpus=machine.gpus if gpus is None else gpus,
        memory=memory or max(limit - object_store - _GIB, _GIB),
        object_store=object_store,
        plasma_directory="/tmp" if object_store > shm // 2 + 1 else None,
    )


def as_json(plan: NodePlan, command: list[str]) -> str:
    """The plan as the JSON object that ``ray-serve-cai plan --json`` prints."""
    resources = plan.resources
    return json.dumps(
        {
            "role": plan.role,
            "head_address": str(plan.head) if plan.head else None,
            "node_ip": plan.node_ip,
            "rule": plan.rule,
            "variables": plan.variables,
            "resources": {
                "cpus": resources.cpus,
                "gpus": resources.gpus,
                "memory_bytes": resources.memory,
                "object_store_bytes": resources.object_store,
                "plasma_directory": resources.plasma_directory or "/dev/shm",
            },
            "ports": plan.ports.as_dict(),
            "min_nodes": plan.min_nodes,
            "min_gpus": plan.min_gpus,
            "join_timeout_s": plan.join_timeout_s,
            "drain_s": plan.drain_s,
            "listen": str(Address(plan.host, plan.ports.front_door)),
            "command": command,
            "doubts": plan.doubts,
        },
        indent=2,
    )
