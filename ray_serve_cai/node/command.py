"""NodePlan -> the ``ray start`` line. Pure."""

from __future__ import annotations

from ray_serve_cai.node.address import Address
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.manifest import Manifest

UNKNOWN_IP = "<address of the route to the head>"
ROLE_LABEL = "rscai/role"
ENGINE_LABEL = "rscai/engine"


def ray_start(plan: NodePlan, manifest: Manifest, node_ip: str | None) -> list[str]:
    """The arguments that start Ray on this node and stay in the foreground.

    Args:
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
    label = "worker" if plan.role == "worker" else "head"
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
        f"--labels={ROLE_LABEL}={label},{ENGINE_LABEL}={manifest.engine}",
        "--disable-usage-stats",
        "--block",
    ]


def gcs_address(plan: NodePlan, node_ip: str) -> Address:
    """Where processes of this node find the cluster's GCS."""
    if plan.role == "worker" and plan.head:
        return plan.head
    return Address(node_ip, plan.ports.gcs)
