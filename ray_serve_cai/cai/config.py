"""The `cai` section of a configuration file: which applications make the cluster. Beside it stand `models` and `server`, for the head."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ray_serve_cai import config
from ray_serve_cai.cai.models import SUBDOMAIN
from ray_serve_cai.config import Config, Strict, explain
from ray_serve_cai.errors import ConfigError
from ray_serve_cai.node import secret_files

HOME = PurePosixPath("/home/cdsw")
"""Where the project's files are in every application."""
DIRECTORY = "ray-serve-cai"
IN_IMAGE = "image"
SCRIPT_IN_IMAGE = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages/ray_serve_cai/cai/launch.py"
LONGEST_NAME = 40
POINTERS = frozenset(secret_files.SECRETS.values())
"""Variables that name files with secrets, of the shell that plans and not of nodes."""
"""A label of a host name has 63 characters; a group and a number follow the cluster's name."""
RESERVED = (
    "RSCAI_ROLE",
    "RSCAI_TOKEN",
    "RSCAI_HEAD_ADDRESS",
    "RSCAI_CLUSTER",
    "RSCAI_CLUSTER_DIR",
    "RSCAI_CLUSTER_NODE",
    "RSCAI_CLUSTER_CROSSING",
    "RSCAI_CLUSTER_WORKERS",
    "RSCAI_CLUSTER_SPEC",
    "RSCAI_CONFIG",
    "RSCAI_MODEL",
    "RSCAI_MODEL_NAME",
    "RSCAI_ENGINE",
    "RSCAI_ENGINE_ARGS",
    "RSCAI_HOST",
    "RSCAI_PORT",
    "RSCAI_PORT_SHARED",
    "RSCAI_NODE_IP",
    "VLLM_API_KEY",
)
"""Variables that the plan sets."""
ACCELERATED = {"NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0"}
"""Pods have one interface, and a service mesh lets no InfiniBand through."""


class NodeConfig(Strict):
    """What one application gets."""

    cpu: Annotated[float, Field(gt=0, le=1024)] = Field(4, description="Cores.")
    memory: Annotated[float, Field(gt=0, le=65536)] = Field(16, description="GB.")
    gpus: Annotated[int, Field(ge=0, le=64)] = Field(0, description="NVIDIA GPUs.")
    accelerator: str | None = Field(None, description="The id of the GPU node label that the application goes to. Default: any.")
    runtime: str | None = Field(None, description="Its runtime. Default: the cluster's.")


class GroupConfig(NodeConfig):
    """Workers that are alike."""

    count: Annotated[int, Field(ge=0, le=500)] = Field(1, description="How many.")


class CaiConfig(Strict):
    """A cluster of applications: a head and groups of workers."""

    name: str = Field("ray-serve", description="What the applications' names and subdomains begin with; the head's subdomain is the name.")
    runtime: Annotated[str, Field(min_length=1)] = Field(
        description="Identifier of the registered runtime, an image of this project with -cai."
    )
    head: NodeConfig = Field(default_factory=lambda: NodeConfig.model_validate({}), description="The head.")
    workers: dict[str, GroupConfig] = Field(default_factory=dict, description="Groups of workers by name.")
    shared_memory_gb: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Shared memory of every session of the project. Default: left as it is (64 MB, unless somebody raised it)."
    )
    authentication: Literal["platform", "keys"] = Field(
        "platform", description="`platform`: only users of the workspace get through. `keys`: anyone does who has the API key."
    )
    mode: Literal["applications", "workers"] = Field(
        "applications",
        description="`applications`: each worker is one, and is restarted for itself. `workers`: the head starts them with the Workers "
        "API; they have its runtime, and end with it.",
    )
    script: str = Field(
        f"{DIRECTORY}/launch.py",
        description="Where in the project the launcher file is put. `image`: none is, and the platform is told the one inside the image, "
        "which not every platform takes.",
    )
    environment: dict[str, str] = Field(default_factory=dict, description="Variables for every node.")
    host: str | None = Field(None, description="The workspace. Default: `CML_HOST`, or the one this runs in.")
    project_id: str | None = Field(None, description="The project. Default: `CDSW_PROJECT_ID`.")
    ca_bundle: str | None = Field(None, description="PEM file of the authorities to trust. Default: `REQUESTS_CA_BUNDLE`, or the system's.")

    @model_validator(mode="before")
    @classmethod
    def _no_key(cls, data: Any) -> Any:
        if isinstance(data, dict) and "api_key" in data:
            raise ValueError("it holds an API key; take it out, and set CML_API_KEY or CML_API_KEY_FILE instead")
        return data

    @field_validator("script")
    @classmethod
    def _in_the_project(cls, script: str) -> str:
        if script != IN_IMAGE and not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*/)+[A-Za-z0-9_][A-Za-z0-9._-]*\.py", script):
            raise ValueError("use a path below the project's root with a directory, for example ray-serve-cai/launch.py")
        return script

    @field_validator("name")
    @classmethod
    def _a_label(cls, name: str) -> str:
        if not SUBDOMAIN.fullmatch(name) or len(name) > LONGEST_NAME:
            raise ValueError(f"it becomes part of host names; use small letters, digits and single dashes, at most {LONGEST_NAME}")
        return name

    @field_validator("workers")
    @classmethod
    def _labels(cls, workers: dict[str, GroupConfig]) -> dict[str, GroupConfig]:
        for name in workers:
            if not SUBDOMAIN.fullmatch(name) or len(name) > 15 or name == "head":
                raise ValueError(f"the group {name!r} becomes part of host names; use small letters and digits, at most 15, and not 'head'")
        return workers

    @field_validator("environment")
    @classmethod
    def _ours_are_ours(cls, environment: dict[str, str]) -> dict[str, str]:
        if taken := sorted(name for name in environment if name in RESERVED or name.startswith("CDSW_") or name in POINTERS):
            raise ValueError(f"{taken[0]} is set by the plan or the platform; leave it out")
        return environment

    @model_validator(mode="after")
    def _workers_are_as_their_head(self) -> CaiConfig:
        for name, group in self.workers.items() if self.mode == "workers" else ():
            if group.runtime or group.accelerator:
                raise ValueError(
                    f"the group {name!r} names a runtime or an accelerator, which it cannot have with mode: workers; leave it out"
                )
        return self

    @property
    def directory(self) -> PurePosixPath:
        """Of the project, where the cluster's files are."""
        return PurePosixPath(DIRECTORY) if self.script == IN_IMAGE else PurePosixPath(self.script).parent

    @property
    def mounted(self) -> Path:
        """The same, as nodes and sessions of the project see it."""
        return Path(HOME / self.directory)

    @property
    def script_path(self) -> str:
        """What the platform is told."""
        return SCRIPT_IN_IMAGE if self.script == IN_IMAGE else self.script

    def applications(self) -> Iterable[str]:
        """The names of all applications, the head's first."""
        yield f"{self.name}-head"
        if self.mode == "workers":
            return
        for group, workers in self.workers.items():
            yield from (f"{self.name}-{group}-{number}" for number in range(1, workers.count + 1))


class CaiFile(Strict):
    """A file for ``ray-serve-cai cai``."""

    cai: CaiConfig
    serving: Config


def load(path: str | Path) -> CaiFile:
    """Read a YAML file.

    Raises:
        ConfigError: as for `ray_serve_cai.config.load`, and where it has no `cai` section.
    """
    data = config.read_yaml(path)
    if not isinstance(data, dict) or not isinstance(data.get(config.CLOUDERA), dict):
        raise ConfigError(f"{path}: has no section `cai`; it names at least the `runtime`, beside `models`.")
    return CaiFile(cai=parse_section(data[config.CLOUDERA], str(path)), serving=config.parse(data, str(path)))


def parse_section(data: object, where: str) -> CaiConfig:
    """Validate a `cai` section; ``where`` names the file in errors.

    Raises:
        ConfigError: it says something impossible.
    """
    try:
        return CaiConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{where}: cai.{explain(item, _known(item['loc']))}" for item in error.errors())) from error


def _known(loc: tuple[str | int, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {"head": NodeConfig, "workers": GroupConfig}
    return list((sections.get(str(loc[0]), CaiConfig) if len(loc) > 1 else CaiConfig).model_fields)
