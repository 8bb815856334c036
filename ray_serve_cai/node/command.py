"""NodePlan -> the ``ray start`` line. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ray_serve_cai import labels
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.contracts import Role
from ray_serve_cai.node.discovery import NodePlan

UNKNOWN_IP = "<address of the route to the head>"


def ray_start(plan: NodePlan, engines: Sequence[str], node_ip: str | None) -> list[str]:
    """The arguments that start Ray on this node and stay in the foreground.

    Args:
        engines: names of the engines that are installed here.
        node_ip: the node's address; None is shown as a placeholder, for a plan that could not resolve it.
    """
    ports, resources = plan.ports, plan.resources
    ip = node_ip or UNKNOWN_IP
    if plan.role == "worker":
        start = [f"--address={plan.head}"]
    else:
        start = [
            "--head",
            f"--port={ports.gcs}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={ports.dashboard}",
            f"--ray-client-server-port={ports.ray_client}",
        ]
    return [
        "ray",
        "start",
        *start,
        f"--node-ip-address={ip}",
        f"--num-cpus={resources.cpus}",
        f"--num-gpus={resources.gpus}",
        f"--memory={resources.memory}",
        f"--object-store-memory={resources.object_store}",
        *([f"--plasma-directory={resources.plasma_directory}"] if resources.plasma_directory else []),
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent_http}",
        f"--metrics-export-port={ports.metrics_export}",
        f"--min-worker-port={ports.workers_first}",
        f"--max-worker-port={ports.workers_last}",
        "--labels=" + ",".join(f"{name}={value}" for name, value in node_labels(plan.role, engines).items()),
        "--disable-usage-stats",
        "--block",
    ]


def node_labels(role: Role, engines: Sequence[str]) -> dict[str, str]:
    """A node's labels in Ray: what it is for, and what it can run."""
    made = {labels.ROLE: "worker" if role == "worker" else "head"}
    for name in engines:
        made |= labels.engine(name)
    return made


def gcs_address(plan: NodePlan, node_ip: str) -> Address:
    """Where processes of this node find the cluster's GCS."""
    if plan.role == "worker" and plan.head:
        return plan.head
    return Address(node_ip, plan.ports.gcs)
