"""YAML or environment -> ``Config``: which models are served, how, and behind what. Unknown keys are errors.

Longer than most modules: every section of the file stands here, beside the one way in which their errors are told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ray_serve_cai.errors import ConfigError, UsageError, counted

Name = Annotated[str, Field(min_length=1, max_length=200)]
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class Strict(BaseModel):
    """Base of all configuration models: no unknown keys, no silent conversions, no mutation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_DECIDED = {"model", "served_model_name", "tensor_parallel_size", "pipeline_parallel_size"}


def _engine_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Python names, whatever dashes a command line would have; one place for each setting."""
    named = {str(key).lstrip("-").replace("-", "_"): value for key, value in arguments.items()}
    for argument in sorted(_DECIDED & named.keys()):
        raise ValueError(f"engine_args.{argument} is set by the model's own keys; move the value there")
    return named


EngineArguments = Annotated[dict[str, Any], AfterValidator(_engine_arguments)]
"""The engine's own arguments, as its command line or its Python API names them."""


class AutoscalingConfig(Strict):
    """How many copies of a model there are, by its load."""

    min: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="Copies that are always there.")
    max: Annotated[int, Field(ge=1, le=1000)] = Field(description="Copies at most.")
    target_ongoing_requests: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None,
        description="Requests per copy, waiting ones included, that the number of copies is made for. "
        "Default: 64, or half of what a copy takes where that is less.",
    )
    upscale_delay_s: Annotated[float, Field(ge=0)] = Field(30, description="Seconds that a higher load must last.")
    downscale_delay_s: Annotated[float, Field(ge=0)] = Field(600, description="Seconds that a lower load must last.")

    @model_validator(mode="after")
    def _in_order(self) -> AutoscalingConfig:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; make max at least {self.min}")
        return self


class ModelConfig(Strict):
    """One model and how it is laid out over the cluster."""

    name: Name = Field(description="Name in the API; also the path segment in /models/<name>/v1. Default: `source`.")
    source: Name = Field(description="A name under /opt/ray-serve-cai/models, a path, or a Hugging Face id.")
    engine: Name | None = Field(None, description="Registered engine name. Default: the engine of the image.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="Copies of the model.")
    autoscaling: AutoscalingConfig | None = Field(None, description="Copies by load, in place of `replicas`; see below.")
    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1024, description="Requests that a replica hands to its engine at a time."
    )
    max_queued: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1024, description="Further requests that wait in a replica; beyond them the answer is 503 with Retry-After."
    )
    tensor_parallel_size: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="Ranks that share each layer.")
    pipeline_parallel_size: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="Ranks that share the list of layers.")
    nodes_per_replica: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Nodes that a replica spans, each with as many of its ranks."
    )
    cpus_per_replica: Annotated[float, Field(gt=0, le=1024)] = Field(
        1.0, description="CPUs that a replica reserves in Ray on each of its nodes; Ray sets its OMP threads to this number."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes the device of the image.")
    engine_args: EngineArguments = Field(
        default_factory=dict, description="The engine's own server arguments, as its command line names them."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_from_source(cls, data: Any) -> Any:
        if isinstance(data, dict) and "source" in data and "name" not in data:
            source = data["source"]
            return {"name": source.rstrip("/") if isinstance(source, str) else source, **data}
        return data

    @field_validator("name")
    @classmethod
    def _name_is_a_path(cls, name: str) -> str:
        if not _SEGMENT.fullmatch(name.lstrip("/")):
            raise ValueError("use letters, digits, '.', '_', '-' and '/' so that it can stand in a URL")
        return name

    @model_validator(mode="after")
    def _load_can_be_seen(self) -> ModelConfig:
        target, takes = self.autoscaling and self.autoscaling.target_ongoing_requests, self.max_concurrent + self.max_queued
        if target and target >= takes:
            raise ValueError(
                f"autoscaling.target_ongoing_requests is {target:g}, but a copy takes no more than {takes} requests (max_concurrent and "
                f"max_queued), so that no copies would be added; set it below {takes}, or raise those"
            )
        return self

    @model_validator(mode="after")
    def _ranks_divide(self) -> ModelConfig:
        if self.ranks % self.nodes_per_replica:
            raise ValueError(
                f"nodes_per_replica is {self.nodes_per_replica} and a replica has {counted(self.ranks, 'rank')} "
                "(tensor_parallel_size times pipeline_parallel_size), which do not divide evenly; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _copies_are_said_once(self) -> ModelConfig:
        if self.autoscaling and "replicas" in self.model_fields_set:
            raise ValueError("replicas and autoscaling are both set; keep one of them")
        return self

    @property
    def ranks(self) -> int:
        """Processes that one replica consists of."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def _collide(one: str, other: str) -> bool:
    """Whether two names lead to one address, or one lies below the other, or Serve would call both the same."""
    a, b = one.strip("/"), other.strip("/")
    return f"{a}/".startswith(f"{b}/") or f"{b}/".startswith(f"{a}/") or a.replace("/", "--") == b.replace("/", "--")


class ServerConfig(Strict):
    """The front door."""

    max_body_mb: Annotated[int, Field(ge=1, le=4096)] = Field(32, description="Largest request body, in MiB; more is answered with 413.")


class DashboardConfig(Strict):
    """Ray's dashboard, on loopback."""

    enabled: bool = Field(True, description="Logs and `ray status` need it.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8265, description="Its port.")


class ResourcesConfig(Strict):
    """What the node offers to Ray."""

    num_cpus: Annotated[int, Field(ge=0, le=100_000)] | None = Field(None, description="Default: the machine's, or the container's limit.")
    num_gpus: Annotated[int, Field(ge=0, le=1024)] | None = Field(None, description="Default: the NVIDIA devices that are there.")
    object_store_memory: Annotated[int, Field(ge=80 << 20)] | None = Field(
        None, description="Bytes. Default: half of /dev/shm, from 80 to 512 MiB."
    )


class ClusterConfig(Strict):
    """A Ray head that ``python -m ray_serve_cai.launch_cluster`` starts. A container of ours has variables for the same."""

    port: Annotated[int, Field(ge=1, le=65535)] = Field(6379, description="Port of Ray's GCS, which workers and drivers connect to.")
    dashboard: DashboardConfig = Field(default_factory=lambda: DashboardConfig.model_validate({}), description="Ray's dashboard.")
    resources: ResourcesConfig = Field(default_factory=lambda: ResourcesConfig.model_validate({}), description="What the node offers.")
    block: bool = Field(False, description="`start` stays in the foreground until Ray ends.")


CLOUDERA = "cai"
"""A section that `ray_serve_cai.cai` reads: the applications of Cloudera AI in which the models are served."""


class Config(Strict):
    """A whole configuration file, but for the section `CLOUDERA`."""

    models: Annotated[list[ModelConfig], Field(min_length=1)] = Field(
        description="Models to serve. All answer at /v1, by the request's `model`, each also at /models/<name>/v1."
    )
    server: ServerConfig = Field(default_factory=lambda: ServerConfig.model_validate({}), description="The front door.")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig.model_validate({}),
        description="For `launch_cluster` alone, which starts Ray without containers.",
    )

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: list[ModelConfig]) -> list[ModelConfig]:
        for position, model in enumerate(models):
            for other in models[:position]:
                if model.name == other.name:
                    raise ValueError(f"two models are named {model.name!r}; names must differ")
                if _collide(model.name, other.name):
                    raise ValueError(
                        f"models {other.name!r} and {model.name!r} would share an address below /models; their names must differ more"
                    )
        return models


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, and not the second one's value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice", key.start_mark)
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


def load(path: str | Path) -> Config:
    """Read a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something impossible. The message holds the file, the path
            in the file, the value and the fix.
    """
    return parse(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> object:
    """What a YAML file holds.

    Raises:
        ConfigError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.load(Path(path).read_text(), _Loader)  # safe: a SafeLoader
    except OSError as error:
        fix = "name a YAML file that is there, in the command or in RSCAI_CONFIG"
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {fix}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}.") from error


def load_cluster(path: str | Path) -> ClusterConfig:
    """The ``cluster`` section of a YAML file, with or without models beside it.

    Raises:
        ConfigError: as for `load`.
    """
    data = read_yaml(path)
    if isinstance(data, dict) and "models" not in data:
        data = {**data, "models": [{"source": "demo"}]}
    return parse(data, str(path)).cluster


def parse(data: object, where: str) -> Config:
    """Validate parsed YAML; ``where`` names the file in errors.

    Raises:
        ConfigError: as for `load`.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: holds {type(data).__name__}, not a mapping; start with `models:`.")
    try:
        return Config.model_validate({name: section for name, section in data.items() if name != CLOUDERA})
    except ValidationError as error:
        raise ConfigError("; ".join(f"{where}: {explain(item, _siblings(item['loc']))}" for item in error.errors())) from error


def from_environment(env: Mapping[str, str]) -> Config:
    """The configuration that RSCAI_CONFIG, or else RSCAI_MODEL and its companions, describe.

    Raises:
        UsageError: variables contradict each other or have impossible values.
        ConfigError: the file they name is wrong.
    """
    values = {name: env.get(name, "").strip() for name in _VARIABLES}
    file = values.pop("RSCAI_CONFIG")
    if file:
        doubled = [name for name, value in values.items() if value]
        if doubled:
            raise UsageError(f"RSCAI_CONFIG and {doubled[0]} are both set; the file says it all: unset {doubled[0]}.")
        return load(file)
    model: dict[str, object] = {"source": values["RSCAI_MODEL"] or "demo", "engine": values["RSCAI_ENGINE"] or None}
    if values["RSCAI_MODEL_NAME"]:
        model["name"] = values["RSCAI_MODEL_NAME"]
    elif not _SEGMENT.fullmatch(str(model["source"]).strip("/")):
        raise UsageError(
            f"RSCAI_MODEL is {model['source']!r}, which cannot be a name in a URL; set RSCAI_MODEL_NAME too, for example to my-model."
        )
    if values["RSCAI_ENGINE_ARGS"]:
        model["engine_args"] = _json_object("RSCAI_ENGINE_ARGS", values["RSCAI_ENGINE_ARGS"])
    return parse({"models": [model]}, "environment")


_VARIABLES = ("RSCAI_CONFIG", "RSCAI_MODEL", "RSCAI_MODEL_NAME", "RSCAI_ENGINE", "RSCAI_ENGINE_ARGS")


def _json_object(variable: str, value: str) -> dict[str, Any]:
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise UsageError(f"{variable} is not JSON ({error}); use for example '{{\"max_model_len\": 2048}}'.") from error
    if not isinstance(parsed, dict):
        raise UsageError(f"{variable} is {value!r}; use a JSON object, for example '{{\"max_model_len\": 2048}}'.")
    return parsed


def explain(item: Mapping[str, Any], known: Iterable[str]) -> str:
    """One of pydantic's errors in a line: the key's path, its value and the fix; ``known`` keys stand beside an unknown one."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
    value = "a mapping" if isinstance(item["input"], Mapping) and item["input"] else repr(item["input"])  # it may hold secrets
    value = value if len(value) <= 80 else value[:77] + "..."
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = list(known)
        near = get_close_matches(str(item["loc"][-1]), known, n=1)
        fix = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}."
        return f"{path}: unknown key; {fix}"
    if item["type"] == "missing":
        return f"{path}: missing; add it."
    if item["type"] in ("model_type", "dict_type"):
        message = "write a mapping, or leave the key out"
    return f"{path or 'top level'}: {value}: {message}."


_SECTIONS: dict[str, type[BaseModel]] = {
    "models": ModelConfig,
    "autoscaling": AutoscalingConfig,
    "server": ServerConfig,
    "cluster": ClusterConfig,
    "dashboard": DashboardConfig,
    "resources": ResourcesConfig,
}


def _siblings(loc: tuple[str | int, ...]) -> list[str]:
    owner: type[BaseModel] = Config
    for part in loc[:-1]:
        owner = _SECTIONS.get(str(part), owner)
    return list(owner.model_fields)
