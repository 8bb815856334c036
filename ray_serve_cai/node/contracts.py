"""How schedulers tell a container its place: one rule for each contract, from the environment to a role. Pure.

``CONTRACTS`` is the table, in the order of precedence; docs/discovery.md is generated from it. A rule returns None where
its contract is not in the environment, or says nothing about roles (a group of one node). A further contract is one more
function and one more row.

Longer than most modules: the rules and their table are read side by side.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import address, hostlist
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.environment import Environment, choice, integer, text
from ray_serve_cai.node.machine import SAGEMAKER, Machine

Role = Literal["head", "worker", "single", "idle"]
"""``single`` is head and worker in one; ``idle`` is a further process beside one that runs the node, and has nothing to do."""
MOST_NODES = 100_000
_LEADERS, _FOLLOWERS = ("ldr", "leader"), ("wkr", "worker")
_OFFERED = ("num-cpus", "num-gpus", "memory")


@dataclass(frozen=True)
class Decision:
    """What a rule found.

    Attributes:
        role: of this container.
        head: where the head is, as far as the environment says it.
        variables: what was read, name -> value.
        rank: of this node among those of its group, 0 for the head; None where nothing says it.
        nodes: of the group, this one counted; None where nothing says it.
    """

    role: Role
    head: Address | None = None
    variables: dict[str, str] = field(default_factory=dict)
    rank: int | None = None
    nodes: int | None = None

    def said(self) -> str:
        """The place, and what it was read from."""
        worker = "a worker" if self.rank is None else f"worker {self.rank}"
        place = worker if self.role == "worker" else f"the {self.role}"
        return f"{place} ({', '.join(f'{name}={value}' for name, value in self.variables.items())})"


@dataclass(frozen=True)
class Contract:
    """A row of the table.

    Attributes:
        name: of the scheduler, or of the rule.
        variables: those that it reads, for the documentation.
        meaning: how they decide, for the documentation.
        decide: the rule; raises `UsageError` where a variable has a value that cannot be.
    """

    name: str
    variables: tuple[str, ...]
    meaning: str
    decide: Callable[[Environment, Machine], Decision | None]


def explicit(env: Environment, machine: Machine) -> Decision | None:
    """RSCAI_ROLE, or MODE as older images had it."""
    role = choice(env, "RSCAI_ROLE", ("head", "worker", "single", "auto"), "auto")
    if role != "auto":
        return Decision(role, None, {"RSCAI_ROLE": role})  # type: ignore[arg-type]  # one of the list above
    mode = (text(env, "MODE") or "").lower()
    if mode in ("head", "worker"):
        return Decision(mode, None, {"MODE": mode})  # type: ignore[arg-type]  # as above
    return None


def kuberay(env: Environment, machine: Machine) -> Decision | None:
    group, line = text(env, "RAY_NODE_TYPE_NAME"), text(env, "KUBERAY_GEN_RAY_START_CMD")
    where = next((name for name in ("FQ_RAY_IP", "RAY_IP") if text(env, name)), None)
    if group is not None:
        read, leads = {"RAY_NODE_TYPE_NAME": group}, group.lower() == "headgroup"
    elif line is not None:
        read, leads = {"KUBERAY_GEN_RAY_START_CMD": line}, "--head" in words(line)
    elif (marked := text(env, "RAY_USAGE_STATS_KUBERAY_IN_USE")) is not None:  # releases before 1.1 name no group
        read, leads = {"RAY_USAGE_STATS_KUBERAY_IN_USE": marked}, where is None
    else:
        return None
    port = _port(env, "RAY_PORT")
    if leads:
        return Decision("head", Address(machine.primary_ip(), port), read)
    where = where or ("RAY_ADDRESS" if text(env, "RAY_ADDRESS") else None)
    head = address.parse(where, env[where].strip(), port) if where else None
    return Decision("worker", head, read | ({where: env[where].strip()} if where else {}))


def leader_worker_set(env: Environment, machine: Machine) -> Decision | None:
    leader, rank, size = text(env, "LWS_LEADER_ADDRESS"), _rank(env, "LWS_WORKER_INDEX"), _size(env, "LWS_GROUP_SIZE")
    head = address.parse("LWS_LEADER_ADDRESS", leader) if leader else None
    if rank is not None:
        return _of_group(env, rank, size, head, "LWS_LEADER_ADDRESS")
    if head is None:
        return None
    return _of_group(env, ("LWS_LEADER_ADDRESS", 0 if _named(machine, head.host) else None), size, head)  # releases before 0.6


def grove(env: Environment, machine: Machine) -> Decision | None:
    """Leader and workers are cliques of their own in Dynamo, ``-ldr`` and ``-wkr``; a single clique is led by its first pod."""
    clique, service = text(env, "GROVE_PCLQ_NAME"), text(env, "GROVE_HEADLESS_SERVICE")
    index = _rank(env, "GROVE_PCLQ_POD_INDEX")
    if clique is None or service is None or index is None or text(env, "GROVE_PCSG_NAME") is None:
        return None
    base, _, kind = clique.rpartition("-")
    rank, leader = index[1], clique
    if kind.lower() in _LEADERS:
        rank = 0
    elif kind.lower() in _FOLLOWERS:
        rank, leader = index[1] + 1, f"{base}-{_LEADERS[_FOLLOWERS.index(kind.lower())]}"
    size = _size(env, "GROVE_PCSG_TEMPLATE_NUM_PODS")
    head = address.parse("GROVE_HEADLESS_SERVICE", f"{leader}-0.{service}")
    return _of_group(env, ("GROVE_PCLQ_NAME", rank), size, head, "GROVE_HEADLESS_SERVICE", shown=f"{clique}, pod {index[1]}")


def nim_operator(env: Environment, machine: Machine) -> Decision | None:
    leads = _either(env, "NIM_LEADER_ROLE")
    rank = _rank(env, "NIM_NODE_RANK")
    if leads is None and rank is None:
        return None
    name, domain = text(env, "LEADER_NAME"), [text(env, "LWS_NAME"), text(env, "NAMESPACE")]
    host = ".".join([name, *domain] if all(domain) else [name]) if name else None  # type: ignore[list-item]  # none of them is None
    head = address.parse("LEADER_NAME", host) if host else None
    size = _size(env, "NIM_NUM_COMPUTE_NODES")
    if rank is None:
        return _of_group(env, ("NIM_LEADER_ROLE", 0 if leads else None), size, head, "LEADER_NAME")
    if leads is not None and leads != (rank[1] == 0):
        raise UsageError(
            f"NIM_LEADER_ROLE is {env['NIM_LEADER_ROLE']!r} and NIM_NODE_RANK is {rank[1]}, but the leader is rank 0; "
            "correct one of them, or set RSCAI_ROLE."
        )
    return _of_group(env, rank, size, head, "LEADER_NAME")


def volcano(env: Environment, machine: Machine) -> Decision | None:
    """An index counts within its task, and no variable names a pod's task: where there are several, its own name tells."""
    rank = _rank(env, "VC_TASK_INDEX", "VK_TASK_INDEX")
    tasks = [name for name in env if name.startswith("VC_") and name.endswith("_HOSTS") and text(env, name)]
    if "VC_WORKER_HOSTS" not in tasks or rank is None:
        return None
    workers = _hosts(env, "VC_WORKER_HOSTS")
    if len(tasks) == 1:
        return _of_group(env, rank, ("VC_WORKER_HOSTS", len(workers)), workers[0], "VC_WORKER_HOSTS")
    leaders = next((name for name in ("VC_HEAD_HOSTS", "VC_LEADER_HOSTS", "VC_MASTER_HOSTS") if name in tasks), "VC_WORKER_HOSTS")
    hosts = workers if leaders == "VC_WORKER_HOSTS" else _hosts(env, leaders) + workers
    place = next((place for place, host in enumerate(hosts) if _named(machine, host.host)), None)
    if place is None:  # a pod of a further task
        return None
    return _of_group(env, (leaders, place), (leaders, len(hosts)), hosts[0], shown=env[leaders].strip())


def sagemaker(env: Environment, machine: Machine) -> Decision | None:
    hosts, current = text(env, "SM_HOSTS"), text(env, "SM_CURRENT_HOST")
    if hosts is None or current is None:
        if not machine.sagemaker:
            return None
        where, document = SAGEMAKER, _json(SAGEMAKER, machine.sagemaker)
        names, current = (document.get("hosts"), document.get("current_host")) if isinstance(document, dict) else (None, None)
    else:
        where, names = "SM_HOSTS", _json("SM_HOSTS", hosts)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names) or not isinstance(current, str):
        raise UsageError(f"{where} names no hosts; it should hold a JSON list of them, or set RSCAI_ROLE.")
    ordered = sorted(names)
    if current not in ordered:
        raise UsageError(f"this host, {current!r}, is not among those of {where}: {', '.join(ordered[:8])}; correct it, or set RSCAI_ROLE.")
    source = "SM_CURRENT_HOST" if where == "SM_HOSTS" else where
    return _of_group(env, (source, ordered.index(current)), (where, len(ordered)), address.parse(where, ordered[0]), where, shown=current)


def azure_ml(env: Environment, machine: Machine) -> Decision | None:
    masters = ("AZ_BATCH_MASTER_NODE", "AZ_BATCHAI_MPI_MASTER_NODE", "AZ_BATCHAI_JOB_MASTER_NODE_IP")
    master = next((name for name in masters if text(env, name)), None)
    if master is None:
        return None
    head = Address(address.parse(master, env[master].strip()).host)  # the port is that of Azure Batch
    if (idle := _idle(env, "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK")) is not None:
        return idle
    node, process = _rank(env, "AZUREML_CR_NODE_RANK", "NODE_RANK"), _rank(env, "OMPI_COMM_WORLD_RANK")
    nodes = _size(env, "AZUREML_NODE_COUNT")
    if node is not None:
        return _of_group(env, node, nodes, head, master)
    if process is None:
        return None
    each = _size(env, "OMPI_COMM_WORLD_LOCAL_SIZE")
    return _of_group(env, _node_of(process, each), nodes or _nodes_of(_size(env, "OMPI_COMM_WORLD_SIZE"), each), head, master)


def cloudera_ai(env: Environment, machine: Machine) -> Decision | None:
    own, master = text(env, "CDSW_ENGINE_ID"), text(env, "CDSW_MASTER_ID")
    if own is None or master is None:
        return None
    name = next((name for name in ("CDSW_MASTER_IP", "CML_MASTER_IP") if text(env, name)), None)
    head = address.parse(name, env[name].strip()) if name else None
    read = {"CDSW_ENGINE_ID": own, "CDSW_MASTER_ID": master}
    if own == master:
        return Decision("head", head, read)
    return Decision("worker", head, read | ({name: env[name].strip()} if name else {}))


def slurm(env: Environment, machine: Machine) -> Decision | None:
    rank = _rank(env, "SLURM_NODEID")
    if text(env, "SLURM_JOB_ID") is None or rank is None:
        return None
    if (idle := _idle(env, "SLURM_LOCALID")) is not None:
        return idle
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    listed = next((name for name in names if text(env, name)), None)
    size = _size(env, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    if listed is None:
        return _of_group(env, rank, size, None, names[1])
    try:
        hosts = hostlist.expand(env[listed].strip())
    except ValueError as error:
        raise UsageError(f"{listed} is {env[listed]!r}: {error}; use Slurm's form, for example gpu[01-04], or set RSCAI_ROLE.") from error
    return _of_group(env, rank, size or (listed, len(hosts)), address.parse(listed, hosts[0]), listed)


def torchrun(env: Environment, machine: Machine) -> Decision | None:
    local, node, process = text(env, "LOCAL_RANK"), _rank(env, "GROUP_RANK", "NODE_RANK"), _rank(env, "RANK")
    if text(env, "MASTER_ADDR") is None or (local is None and node is None):
        return None
    if (idle := _idle(env, "LOCAL_RANK")) is not None:
        return idle
    each = _size(env, "LOCAL_WORLD_SIZE")
    size = _size(env, "GROUP_WORLD_SIZE", "NNODES") or _nodes_of(_size(env, "WORLD_SIZE"), each)
    if node is not None:
        return _of_group(env, node, size, _master(env), "MASTER_ADDR")
    return _of_group(env, _node_of(process, each), size, _master(env), "MASTER_ADDR") if process else None


def pai_dlc(env: Environment, machine: Machine) -> Decision | None:
    rank = _rank(env, "RANK")
    if text(env, "MASTER_ADDR") is None or rank is None or text(env, "LOCAL_RANK") is not None:
        return None
    return _of_group(env, rank, _size(env, "WORLD_SIZE"), _master(env), "MASTER_ADDR")


def kserve(env: Environment, machine: Machine) -> Decision | None:
    counted = _size(env, "RAY_NODE_COUNT")
    size, service = counted or _size(env, "EXPECTED_NODES"), text(env, "HEAD_SVC")
    given, port = text(env, "RAY_ADDRESS"), _port(env, "RAY_PORT")
    if size is None:
        return None
    if service is not None:
        host = ".".join(part for part in (service, text(env, "POD_NAMESPACE")) if part)
        return _of_group(env, ("HEAD_SVC", None), size, address.parse("HEAD_SVC", host, port))
    if given is not None and "://" not in given and given.lower() not in ("auto", "local"):
        head = address.parse("RAY_ADDRESS", given, port)
        mine = _named(machine, head.host) or node_ip(env, machine) == head.host
        return _of_group(env, ("RAY_ADDRESS", 0 if mine else None), size, head)
    return _of_group(env, ("RAY_NODE_COUNT", 0), size, Address(machine.primary_ip(), port)) if counted else None


def address_is_mine(env: Environment, machine: Machine) -> Decision | None:
    given = head_address(env)
    if given is None:
        return None
    name, head = given
    mine = machine.is_me(head.host) or node_ip(env, machine) == head.host
    return Decision("head" if mine else "worker", head, {name: env[name].strip()})


def nothing(env: Environment, machine: Machine) -> Decision | None:
    return Decision("single")


CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "explicit",
        ("RSCAI_ROLE", "MODE"),
        "The role outright; `RSCAI_ROLE` other than `auto` ends the search. `MODE`, of older images, only as `head` or `worker`. "
        "Compose and Swarm: each service has its role, and workers find the head by its service's name.",
        explicit,
    ),
    Contract(
        "KubeRay",
        ("RAY_NODE_TYPE_NAME", "KUBERAY_GEN_RAY_START_CMD", "FQ_RAY_IP", "RAY_IP", "RAY_ADDRESS", "RAY_PORT"),
        "`headgroup` is the head, every other group a worker; its head is the first of the three addresses that is set. "
        "CPUs, GPUs and memory come from the generated command unless they are set here.",
        kuberay,
    ),
    Contract(
        "LeaderWorkerSet",
        ("LWS_LEADER_ADDRESS", "LWS_WORKER_INDEX", "LWS_GROUP_SIZE"),
        "Index 0 leads; without an index, the pod whose name begins the leader's address.",
        leader_worker_set,
    ),
    Contract(
        "Grove",
        ("GROVE_PCSG_NAME", "GROVE_PCLQ_NAME", "GROVE_PCLQ_POD_INDEX", "GROVE_HEADLESS_SERVICE", "GROVE_PCSG_TEMPLATE_NUM_PODS"),
        "The clique whose name ends in `-ldr` or `-leader` is the head, those in `-wkr` or `-worker` are workers; "
        "of a clique with another name the first pod leads.",
        grove,
    ),
    Contract(
        "NIM operator",
        ("NIM_LEADER_ROLE", "NIM_NODE_RANK", "NIM_NUM_COMPUTE_NODES", "LEADER_NAME", "LWS_NAME", "NAMESPACE"),
        "The leader is rank 0; beside LeaderWorkerSet, whose address counts.",
        nim_operator,
    ),
    Contract(
        "Volcano, ModelArts",
        ("VC_WORKER_HOSTS", "VC_TASK_INDEX", "VC_MASTER_HOSTS"),
        "The first of the hosts is the head. Beside a task `master`, `head` or `leader` that one's first is, and a pod's own name tells "
        "its place; pods of further tasks have none.",
        volcano,
    ),
    Contract(
        "SageMaker",
        ("SM_HOSTS", "SM_CURRENT_HOST"),
        f"The first of the hosts in the order of their names is the head; without the variables, as `{SAGEMAKER}` says.",
        sagemaker,
    ),
    Contract(
        "Azure ML",
        (
            *("AZ_BATCH_MASTER_NODE", "AZ_BATCHAI_MPI_MASTER_NODE", "AZ_BATCHAI_JOB_MASTER_NODE_IP", "AZUREML_CR_NODE_RANK", "NODE_RANK"),
            *("AZUREML_NODE_COUNT", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ),
        "Rank 0 is the head, at the master node's address. Of several processes on a node the first runs it, the others end.",
        azure_ml,
    ),
    Contract(
        "Cloudera AI",
        ("CDSW_ENGINE_ID", "CDSW_MASTER_ID", "CDSW_MASTER_IP", "CML_MASTER_IP"),
        "The engine that is the master is the head. Applications have no master: they are given `RSCAI_HEAD_ADDRESS`.",
        cloudera_ai,
    ),
    Contract(
        "Slurm",
        ("SLURM_JOB_ID", "SLURM_NODEID", "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NNODES", "SLURM_LOCALID"),
        "Node 0 is the head, the first of the node list. Of several tasks on a node the first runs it, the others end.",
        slurm,
    ),
    Contract(
        "torchrun",
        ("MASTER_ADDR", "GROUP_RANK", "NODE_RANK", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
        "Node rank 0 is the head, at the master's address; `LOCAL_RANK` 0 runs the node, the others end.",
        torchrun,
    ),
    Contract(
        "PAI DLC, PyTorchJob",
        ("MASTER_ADDR", "RANK", "WORLD_SIZE"),
        "Without `LOCAL_RANK`, ranks count nodes; 0 is the head.",
        pai_dlc,
    ),
    Contract(
        "KServe, production-stack",
        ("RAY_NODE_COUNT", "EXPECTED_NODES", "HEAD_SVC", "POD_NAMESPACE", "RAY_ADDRESS", "RAY_PORT"),
        "Where the number of nodes is given: `HEAD_SVC` is on workers; without it whoever has Ray's address is the head, "
        "and in KServe's containers, which have none, `RAY_NODE_COUNT` alone.",
        kserve,
    ),
    Contract(
        "address is mine",
        ("RSCAI_HEAD_ADDRESS", "RAY_HEAD_ADDRESS"),
        "A head is named, and nothing else says a role: the node that has this address is the head, every other one a worker.",
        address_is_mine,
    ),
    Contract("nothing", (), "One node, head and worker in one.", nothing),
)


def head_address(env: Environment) -> tuple[str, Address] | None:
    """The head's address where somebody set it for us, whatever the scheduler says; and the variable."""
    for name in ("RSCAI_HEAD_ADDRESS", "RAY_HEAD_ADDRESS"):
        value = text(env, name)
        if value is not None:
            return name, address.parse(name, value)
    return None


def node_ip(env: Environment, machine: Machine) -> str | None:
    """This node's own address where it is given, or its only one in the network that is given.

    Raises:
        UsageError: it is neither an IP address nor a network of this node.
    """
    given = text(env, "RSCAI_NODE_IP")
    if given is not None and "/" in given:
        return _address_within(given, machine)
    for name in ("RSCAI_NODE_IP", "RAY_NODE_IP", "VLLM_HOST_IP", "CDSW_IP_ADDRESS"):
        value = text(env, name)
        if value is not None:
            ip = address.literal_ip(value.strip("[]"))
            if ip is None:
                raise UsageError(f"{name} is {value!r}; use an IP address of this node, for example 10.0.0.5.")
            return ip
    return None


def _address_within(network: str, machine: Machine) -> str:
    """A node on several networks has one address in the cluster's; all nodes can be told the same."""
    try:
        wanted = ipaddress.ip_network(network, strict=False)
    except ValueError:
        raise UsageError(f"RSCAI_NODE_IP is {network!r}; use an address of this node, or a network such as 10.0.0.0/16.") from None
    found = sorted(ip for ip in machine.addresses if ipaddress.ip_address(ip) in wanted)
    if len(found) != 1:
        said = f"the addresses {', '.join(found)}" if found else f"no address, only {', '.join(sorted(machine.addresses))}"
        raise UsageError(f"RSCAI_NODE_IP is {network!r}, where this node has {said}; name one address, or another network.")
    return found[0]


def kuberay_resources(env: Environment) -> dict[str, int]:
    """What KubeRay's generated command would offer to Ray: num-cpus, num-gpus, memory in bytes, as far as it says."""
    found: dict[str, int] = {}
    for word, after in zip_longest(given := words(text(env, "KUBERAY_GEN_RAY_START_CMD")), given[1:], fillvalue=""):
        name, equals, value = word.removeprefix("--").partition("=")
        value = value if equals else after
        if word.startswith("--") and name in _OFFERED and value.isascii() and value.isdigit():
            found[name] = int(value)
    return found


def cloudera_limits(env: Environment) -> tuple[int | None, int | None]:
    """What Cloudera AI says that this engine got: CPUs, a fraction rounded up, and memory in bytes, taking its MB as 10**6."""
    cpus, memory = text(env, "CDSW_CPU_MILLICORES") or "", text(env, "CDSW_MEMORY_MB") or ""
    return _whole(cpus) and -(-int(cpus) // 1000), _whole(memory) and int(memory) * 10**6


def _whole(value: str) -> int | None:
    return int(value) or None if value.isascii() and value.isdigit() and len(value) <= 12 else None


def words(line: str | None) -> list[str]:
    """A command line as its words; as much as can be read of one with an open quotation mark."""
    try:
        return shlex.split(line or "")
    except ValueError:
        return (line or "").split()


def _of_group(
    env: Environment,
    rank: tuple[str, int | None],
    size: tuple[str, int] | None,
    head: Address | None,
    source: str | None = None,
    *,
    shown: str | None = None,
) -> Decision | None:
    """The decision for a place in a group of nodes; None for a group of one.

    Args:
        rank: the variable, and the place; None is some place other than 0.
        size: the variable, and the number of nodes.
        source: the variable that the head's address was read from.
        shown: what to show as the value of the rank's variable, where that is not the rank.
    """
    name, place = rank
    if size and place is not None and place >= size[1]:
        raise UsageError(f"{name} is {place} but {size[0]} is {size[1]}; ranks run from 0 to {size[1] - 1}. Correct it, or set RSCAI_ROLE.")
    if size and size[1] == 1:
        return None
    read = {name: shown or text(env, name) or str(place)}
    if source and source != name and (given := text(env, source)):
        read[source] = given
    return Decision("head" if place == 0 else "worker", head, read, place, size[1] if size else None)


def _idle(env: Environment, *names: str) -> Decision | None:
    """For a process that is not the first of its machine."""
    found = _rank(env, *names)
    return Decision("idle", None, {found[0]: str(found[1])}) if found and found[1] else None


def _rank(env: Environment, *names: str) -> tuple[str, int] | None:
    """The first of the variables that is set, and its value, counted from 0."""
    return _first(env, names, low=0)


def _size(env: Environment, *names: str) -> tuple[str, int] | None:
    """The first of the variables that is set, and its value, 1 or more."""
    return _first(env, names, low=1)


def _first(env: Environment, names: Sequence[str], *, low: int) -> tuple[str, int] | None:
    for name in names:
        value = integer(env, name, low=low, high=MOST_NODES)
        if value is not None:
            return name, value
    return None


def _node_of(process: tuple[str, int], each: tuple[str, int] | None) -> tuple[str, int | None]:
    """The place of the node that a process runs on, with so many processes on each; None is any but the first."""
    name, rank = process
    return name, rank // each[1] if each else (0 if rank == 0 else None)


def _nodes_of(every: tuple[str, int] | None, each: tuple[str, int] | None) -> tuple[str, int] | None:
    """The number of nodes on which so many processes run."""
    return (every[0], max(1, every[1] // each[1])) if every and each else None


def _port(env: Environment, name: str) -> int:
    return integer(env, name, low=1, high=65535) or address.GCS_PORT


def _either(env: Environment, name: str) -> bool | None:
    return choice(env, name, ("1", "true", "0", "false"), "0") in ("1", "true") if text(env, name) else None


def _master(env: Environment) -> Address:
    """PyTorch's master; its port is that of PyTorch's own store."""
    return Address(address.parse("MASTER_ADDR", env["MASTER_ADDR"].strip()).host)


def _named(machine: Machine, host: str) -> bool:
    """Whether a host is this machine, also where its own name is only the first part of it, as in a pod of a headless service."""
    return machine.is_me(host) or (address.literal_ip(host) is None and machine.is_me(host.partition(".")[0]))


def _hosts(env: Environment, name: str) -> list[Address]:
    hosts = [address.parse(name, host.strip()) for host in env[name].split(",") if host.strip()]
    if not hosts:
        raise UsageError(f"{name} is {env[name]!r}, which names no hosts; correct it, or set RSCAI_ROLE.")
    return hosts


def _json(where: str, written: str) -> object:
    try:
        return json.loads(written)
    except ValueError as error:
        raise UsageError(f"{where} is {written[:80]!r}, which is no JSON; correct it, or set RSCAI_ROLE.") from error


def conflict(decisions: Sequence[tuple[str, Decision]]) -> str | None:
    """What is wrong where two contracts give this node different places; None where all agree. The first counts otherwise."""
    first, chosen = decisions[0]
    for name, other in decisions[1:]:
        ranks = chosen.rank is not None and other.rank is not None and chosen.rank != other.rank
        if ranks or (chosen.role == "worker") != (other.role == "worker"):
            return f"{first} says that this is {chosen.said()}, but {name} says {other.said()}"
    return None
