"""The options of the commands below ``ray-serve-cai cai``; what they do stands in `cloudera`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ray_serve_cai.commands import cloudera

FILE = "configs/cloudera_ai.yaml"
Run = Callable[[argparse.Namespace], int]
Command = Callable[[str, "Run | None", str, str], argparse.ArgumentParser]


def parsers(command: Command) -> None:
    """Add the commands; ``command`` makes one of a name, what it runs, a summary and an example."""
    made = command(
        "plan", cloudera.plan, "Show what `up` would create, change and delete, and touch nothing.", f"ray-serve-cai cai plan -f {FILE}"
    )
    _of_file(made)
    made = command(
        "up",
        cloudera.up,
        "Bring the project's applications to what the file says, and wait until the models answer; safe to run again.",
        f"CML_API_KEY_FILE=key ray-serve-cai cai up -f {FILE}",
    )
    _of_file(made)
    _timeout(made, 1800)
    made = command(
        "status",
        cloudera.status,
        "Show the cluster's applications, nodes, models and address.",
        f"ray-serve-cai cai status -f {FILE} --json",
    )
    _of_file(made)
    made = command(
        "scale", cloudera.scale, "Bring groups of workers to other counts than the file's.", f"ray-serve-cai cai scale -f {FILE} gpu=3"
    )
    made.add_argument("groups", nargs="+", metavar="GROUP=N", help="a group of the file, and how many workers it is to have")
    _of_file(made)
    _timeout(made, 1800)
    made = command(
        "down",
        cloudera.down,
        "Delete the cluster's applications, and wait until they are gone; files stay.",
        f"ray-serve-cai cai down -f {FILE}",
    )
    _of_file(made)
    _timeout(made, 600)
    made = command(
        "logs",
        cloudera.node_logs,
        "Show what nodes wrote, in a session of the project; elsewhere, where to look: the platform's API has no logs.",
        f"ray-serve-cai cai logs -f {FILE} gpu-1",
    )
    made.add_argument("node", nargs="?", metavar="NODE", help="`head`, or a worker such as `gpu-1` (default: all)")
    made.add_argument("--tail", type=int, default=200, metavar="N", help="lines of each node (default: %(default)s)")
    _file(made)
    made = command(
        "doctor",
        cloudera.doctor,
        "Look for what would keep the cluster from coming up, each with its fix: key, project, runtimes, GPUs, shared memory, names.",
        f"ray-serve-cai cai doctor -f {FILE}",
    )
    _of_file(made)
    made = command(
        "register-runtime",
        cloudera.register_runtime,
        "Add an image to the workspace's runtime catalog, or print what an administrator needs for that.",
        "ray-serve-cai cai register-runtime registry.example.com/ray-serve-cai:vllm-cuda-cai",
    )
    made.add_argument("image", metavar="IMAGE", help="the image's address, as the workspace reaches it")
    made.add_argument("--credential", metavar="ID", help="of the registry's password in the workspace (docker_credential_id)")
    made.add_argument(
        "--repo-file", action="store_true", help="ask nobody, and print a Runtime Repo file of the image, which must be here in Docker"
    )
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    _of_workspace(made)
    command(
        "node",
        cloudera.node,
        "Run one application's part of a cluster; the file that `up` puts into the project calls this.",
        "ray-serve-cai cai node",
    )


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", type=Path, required=True, metavar="F", help="YAML file with a section `cai`, beside `models`")


def _of_file(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    _of_workspace(parser)
    parser.add_argument("--json", action="store_true", help="print an object for scripts; progress goes to standard error")


def _of_workspace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="URL", help="the workspace (default: CML_HOST, that of this session, or the file's)")
    parser.add_argument("--project", metavar="ID", help="the project (default: CDSW_PROJECT_ID, or the file's)")


def _timeout(parser: argparse.ArgumentParser, seconds: int) -> None:
    parser.add_argument("--timeout", type=float, default=seconds, metavar="S", help="seconds to wait (default: %(default)s)")
