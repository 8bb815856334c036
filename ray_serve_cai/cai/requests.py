"""What each application of a cluster is to be. Pure.

An application is the cluster's own if its environment says so: RSCAI_CLUSTER has the cluster's name. RSCAI_CLUSTER_SPEC has a digest of all
that was asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import PurePosixPath

import yaml

from ray_serve_cai.cai.config import ACCELERATED, HOME, IN_IMAGE, CaiConfig, CaiFile, NodeConfig
from ray_serve_cai.cai.models import Application, ApplicationRequest
from ray_serve_cai.cai.session_workers import describe

CLUSTER, SPEC, TOKEN = "RSCAI_CLUSTER", "RSCAI_CLUSTER_SPEC", "RSCAI_TOKEN"
CONFIG, CROSSING, WORKERS = "RSCAI_CONFIG", "RSCAI_CLUSTER_CROSSING", "RSCAI_CLUSTER_WORKERS"
KEY = "VLLM_API_KEY"
SECRETS = frozenset({TOKEN, KEY, "HF_TOKEN"})
"""Never shown; a digest of what was asked for has a hash of each."""


@dataclass(frozen=True)
class Shared:
    """What all nodes are told and nobody else is.

    Attributes:
        token: the cluster token.
        secrets: `KEY` and HF_TOKEN; empty where this shell does not have them.
    """

    token: str = field(repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def owned(applications: Iterable[Application], cluster: str) -> list[Application]:
    """Those of a cluster."""
    return [one for one in applications if one.environment.get(CLUSTER) == cluster]


def project_files(wanted: CaiFile) -> dict[str, bytes]:
    """The launcher file, and the configuration that the head reads."""
    launcher = files("ray_serve_cai.cai").joinpath("launch.py").read_bytes()
    script = {} if wanted.cai.script == IN_IMAGE else {wanted.cai.script: launcher}
    return {**script, str(configuration(wanted)): _configuration(wanted).encode()}


def configuration(wanted: CaiFile) -> PurePosixPath:
    """The configuration's place in the project, beside the launcher file; another one has another name, so none is ever replaced."""
    hashed = hashlib.sha256(_configuration(wanted).encode()).hexdigest()[:16]
    return wanted.cai.directory / f"{wanted.cai.name}.{hashed}.yaml"


def unfinished(request: ApplicationRequest) -> ApplicationRequest:
    """The same with a digest that no plan asks for."""
    return request.model_copy(update={"environment": {**request.environment, SPEC: "unfinished"}})


def wants(wanted: CaiFile, shared: Shared) -> dict[str, ApplicationRequest]:
    """Each application that makes the cluster, by name."""
    cai = wanted.cai
    head = cai.name + "-head"
    crosses = any(model.nodes_per_replica > 1 for model in wanted.serving.models)
    made = {head: _request(cai, cai.head, head, shared, _of_head(wanted), crosses=crosses)}
    for group, workers in cai.workers.items() if cai.mode == "applications" else ():
        for number in range(1, workers.count + 1):
            name = f"{cai.name}-{group}-{number}"
            made[name] = _request(cai, workers, name, shared, {}, crosses=crosses)
    return made


def _request(
    cai: CaiConfig, node: NodeConfig, name: str, shared: Shared, of_head: Mapping[str, str], *, crosses: bool
) -> ApplicationRequest:
    role = "head" if of_head else "worker"
    environment = (ACCELERATED if node.gpus else {}) | cai.environment | dict(of_head)
    environment |= {"RSCAI_ROLE": role, "RSCAI_CLUSTER_DIR": str(cai.mounted), "RSCAI_CLUSTER_NODE": name}
    environment |= {CLUSTER: cai.name, TOKEN: shared.token}
    if crosses:
        environment[CROSSING] = "1"
    environment |= {variable: value for variable, value in shared.secrets.items() if value}
    request = ApplicationRequest(
        name=name,
        subdomain=cai.name if of_head else name,
        script=cai.script_path,
        cpu=node.cpu,
        memory=node.memory,
        nvidia_gpu=node.gpus,
        runtime_identifier=node.runtime or cai.runtime,
        accelerator_label_id=node.accelerator if node.gpus else None,
        description=f"{role} of the cluster {cai.name}, made by ray-serve-cai",
        environment=environment,
        bypass_authentication=cai.authentication == "keys" and bool(of_head),
    )
    return request.model_copy(update={"environment": {**environment, SPEC: digest(request)}})


def digest(request: ApplicationRequest) -> str:
    """Tells whether two requests ask for the same; of a secret only a hash is in it."""
    body = request.body()
    body["environment"] = {
        name: _hidden(value) if name in SECRETS else value for name, value in request.environment.items() if name != SPEC
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _hidden(value: str) -> str:
    return hashlib.sha256(b"ray-serve-cai:" + value.encode()).hexdigest()[:16]


def _of_head(wanted: CaiFile) -> dict[str, str]:
    """The configuration's place, and the workers that it starts itself."""
    started = {WORKERS: describe(wanted.cai)} if wanted.cai.mode == "workers" else {}
    return {CONFIG: str(HOME / configuration(wanted)), **started}


def _configuration(wanted: CaiFile) -> str:
    return yaml.safe_dump(wanted.serving.model_dump(mode="json", exclude_unset=True), sort_keys=False)
