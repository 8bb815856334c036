"""``ray-serve-cai cai doctor``: what would keep a cluster from coming up on the platform, each with its fix. Only asks.

Each check looks at one thing; a further one is one more function and one more row of ``CHECKS``.
"""

from __future__ import annotations

import posixpath
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ray_serve_cai.cai import cluster, rendezvous
from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.config import IN_IMAGE, CaiFile, NodeConfig
from ray_serve_cai.cai.models import NodeLabel, Project, Runtime, Status
from ray_serve_cai.cai.plan import There, plan
from ray_serve_cai.cai.requests import owned
from ray_serve_cai.errors import RayServeCaiError
from ray_serve_cai.node import address
from ray_serve_cai.node.doctor import Finding

DEFAULT_SHM_MB = 64
TIMEOUT_S = 5.0
EDITOR = "PBJ Workbench"


@dataclass(frozen=True)
class Seen:
    """What the platform says, asked once."""

    wanted: CaiFile
    env: Mapping[str, str]
    client: Client
    there: There
    runtimes: list[Runtime]

    @property
    def project(self) -> Project:
        return self.there.project

    @property
    def nodes(self) -> dict[str, NodeConfig]:
        """The head and each group, by name."""
        return {"head": self.wanted.cai.head, **self.wanted.cai.workers}


def examine(client: Client, wanted: CaiFile, env: Mapping[str, str]) -> Iterator[Finding]:
    """All findings, as they are found. Where the key or the project is wrong nothing else can be asked."""
    try:
        seen = Seen(wanted, env, client, cluster.there(client, wanted), client.runtimes())
    except RayServeCaiError as error:
        yield Finding("access", "error", str(error))
        return
    yield Finding("access", "ok", f"the API key opens the project {seen.project.name or seen.project.id!r}")
    for name, check in CHECKS.items():
        try:
            yield from check(seen)
        except RayServeCaiError as error:
            yield Finding(name, "warning", f"cannot be asked: {error}")


def _project(seen: Seen) -> Iterator[Finding]:
    kind = seen.project.default_project_engine_type
    if kind and kind != "ml_runtime":
        yield Finding("project", "error", f"the project uses {kind!r}, not ML Runtimes", "Project Settings, Runtime/Engine: ML Runtime")
    else:
        yield Finding("project", "ok", "the project uses ML Runtimes")


def _runtimes(seen: Seen) -> Iterator[Finding]:
    known = {one.image_identifier: one for one in seen.runtimes}
    for image in dict.fromkeys(node.runtime or seen.wanted.cai.runtime for node in seen.nodes.values()):
        there = known.get(image)
        if there is None:
            yield Finding("runtime", "error", f"{image} is not in the catalog", f"ray-serve-cai cai register-runtime {image}")
        elif there.status.upper() not in ("", "ENABLED"):
            yield Finding("runtime", "error", f"{image} is {there.status.lower()}", "an administrator enables it in the Runtime Catalog")
        elif there.editor not in ("", EDITOR):
            yield Finding(
                "runtime", "error", f"{image} is for the editor {there.editor!r}", f"use an image with -cai, which is for {EDITOR}"
            )
        else:
            yield Finding("runtime", "ok", f"{image} is in the catalog ({there.edition or there.kernel or 'enabled'})")


def _gpus(seen: Seen) -> Iterator[Finding]:
    groups = {name: node for name, node in seen.nodes.items() if node.gpus}
    if not groups:
        return
    labels = seen.client.node_labels()
    if not labels:
        yield Finding("gpus", "warning", "the workspace names no kind of GPU node", "an administrator sees which nodes it has")
    for name, node in groups.items():
        yield _fits(name, node, labels)


def _fits(name: str, node: NodeConfig, labels: list[NodeLabel]) -> Finding:
    named = [one for one in labels if one.id == node.accelerator] if node.accelerator else labels
    ids = ", ".join(f"{one.id} ({one.label_value or one.label_key})" for one in labels) or "none"
    if node.accelerator and not named:
        return Finding("gpus", "error", f"{name}: there is no GPU node label {node.accelerator!r}", f"use one of: {ids}")
    if named and not any(one.availability for one in named):
        return Finding("gpus", "error", f"{name}: no node of that kind is available", f"wait, or use another one: {ids}")
    most = max((one.max_gpu_per_workload for one in named), default=0)
    if most and node.gpus > most:
        return Finding(
            "gpus", "error", f"{name}: {node.gpus} GPUs asked for, and a workload gets {most} at most", "more workers with fewer GPUs"
        )
    return Finding("gpus", "ok", f"{name}: {node.gpus} of {most or 'an unknown number'} GPUs that a workload may have")


def _shared_memory(seen: Seen) -> Iterator[Finding]:
    now, wanted = seen.project.shared_memory_limit or DEFAULT_SHM_MB, (seen.wanted.cai.shared_memory_gb or 0) * 1024
    ranks = max(model.ranks for model in seen.wanted.serving.models)
    if max(now, wanted) <= DEFAULT_SHM_MB and ranks > 1:
        fact = f"sessions have {now} MB of shared memory, and a model has {ranks} ranks"
        yield Finding("shm", "error", fact, "cai.shared_memory_gb: 8")
    elif wanted > now:
        yield Finding("shm", "ok", f"sessions have {now} MB of shared memory; `up` raises it to {wanted} MB")
    else:
        yield Finding("shm", "ok", f"sessions have {now} MB of shared memory")


def _names(seen: Seen) -> Iterator[Finding]:
    try:
        made = plan(seen.wanted, seen.there, cluster.shared(seen.env))
    except RayServeCaiError as error:
        yield Finding("names", "error", str(error))
        return
    yield Finding("names", "ok", f"names and subdomains are free in this project, or the cluster's own; to do: {len(made.changes)}")
    for one in owned(seen.there.applications, seen.wanted.cai.name):
        if one.status is Status.FAILED:
            yield Finding(
                "nodes", "error", f"{one.name} failed", "its log in the workspace says why; `ray-serve-cai cai up` starts it again"
            )


def _script(seen: Seen) -> Iterator[Finding]:
    if seen.wanted.cai.script == IN_IMAGE:
        yield Finding("script", "skipped", "whether this platform takes a script inside the image is seen when an application starts")
        return
    directory, name = posixpath.split(seen.wanted.cai.script)
    stem, dot, extension = name.rpartition(".")
    there = [posixpath.basename(path) for path in seen.there.files]
    copies = [one for one in there if re.fullmatch(rf"{re.escape(stem)}\(\d+\){re.escape(dot + extension)}", one)]
    if copies:
        yield Finding("script", "warning", f"{directory} has {', '.join(copies)}, which nothing reads", "remove them")
    else:
        yield Finding("script", "ok", f"{seen.wanted.cai.script} is {'there' if name in there else 'put there by `up`'}")


def _authentication(seen: Seen) -> Iterator[Finding]:
    if seen.wanted.cai.authentication == "platform":
        yield Finding("access", "ok", "only users of the workspace reach the models")
        return
    fact = "the API does not tell whether the site allows applications without authentication"
    yield Finding(
        "access", "skipped", fact, "Site Administration, Security: allow applications to be configured with unauthenticated access"
    )


def _network(seen: Seen) -> Iterator[Finding]:
    """Only inside the platform: whether this pod reaches the head's."""
    cai = seen.wanted.cai
    record = rendezvous.read(rendezvous.place(cai.mounted, cai.name))
    if not seen.env.get("CDSW_ENGINE_ID") or record is None:
        yield Finding("network", "skipped", "pods reach each other or not: to be seen in a session of the project, while the head runs")
        return
    head = address.parse("address", record.address)
    try:
        socket.create_connection((head.host, head.port), TIMEOUT_S).close()
    except OSError as error:
        fix = "a network policy or a service mesh between pods of a project; ask an administrator"
        yield Finding("network", "error", f"this pod does not reach the head at {head}: {error}", fix)
    else:
        yield Finding("network", "ok", f"this pod reaches the head at {head}")


CHECKS: dict[str, Callable[[Seen], Iterator[Finding]]] = {
    "project": _project,
    "runtime": _runtimes,
    "gpus": _gpus,
    "shm": _shared_memory,
    "names": _names,
    "script": _script,
    "access": _authentication,
    "network": _network,
}
