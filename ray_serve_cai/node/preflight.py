"""What can be found wrong with this machine before anything is started."""

from __future__ import annotations

import errno
import logging
import socket

from ray_serve_cai.errors import ResourceError
from ray_serve_cai.node.address import everywhere
from ray_serve_cai.node.discovery import NodePlan

logger = logging.getLogger(__name__)

_NODES = {"single": "container", "worker": "worker"}
_SETTINGS = {"front_door": "RSCAI_PORT", "serve_http": "RSCAI_SERVE_PORT", "status": "RSCAI_STATUS_PORT", "gcs": "RSCAI_HEAD_ADDRESS"}


GPUS = "start the container with --gpus all (Docker), ask for nvidia.com/gpu (Kubernetes)"


def check(plan: NodePlan, device: str) -> None:
    """Raise what would stop this node from serving; log what would only hurt. ``device`` is what the image computes on.

    Raises:
        ResourceError: a port is taken, or may not be opened; a node that is to serve has no GPU for an image that needs one.
    """
    check_ports(plan)
    check_device(plan, device)
    if plan.resources.plasma_directory:
        logger.warning("/dev/shm is small, so Ray's object store goes to /tmp; start the container with --shm-size 1g.")


def check_device(plan: NodePlan, device: str) -> None:
    """See that a node which is to serve has what its image computes on; a head may lead workers that have it.

    Raises:
        ResourceError: there is no GPU for an image that needs one.
    """
    if device == "cuda" and plan.role != "head" and not plan.resources.gpus:
        raise ResourceError(f"this image computes on GPUs and this {_NODES[plan.role]} has none; {GPUS}, or use the image for CPUs.")


def check_ports(plan: NodePlan) -> None:
    """Bind each port that this node will listen on.

    Raises:
        ResourceError: as `check`.
    """
    for name, port in plan.ports.listening(plan.role).items():
        is_door = name == "front_door"
        _check_port(name, port, plan.host if is_door else everywhere(plan.node_ip), shared=is_door and plan.port_shared)


def _check_port(name: str, port: int, host: str, *, shared: bool) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            fix = f"set {_SETTINGS[name]} to a free one" if name in _SETTINGS else "stop what uses it"
            fact = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise ResourceError(f"port {port} on {host} ({name}) {fact}; {fix}.") from error
