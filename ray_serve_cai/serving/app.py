"""Config -> Serve applications. `serve_schema` is pure; `build_application` runs as a task on any node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ray_serve_cai.config import Config, ModelConfig
from ray_serve_cai.engines import user_config
from ray_serve_cai.engines.engine_config import DEPLOYMENT, EngineConfig, of_arguments
from ray_serve_cai.engines.registry import deployment_factory, get_registry
from ray_serve_cai.errors import ConfigError
from ray_serve_cai.sources import resolve
from ray_serve_cai.state import ModelFiles, models_path

if TYPE_CHECKING:
    from ray.serve import Application


def route_prefix(config: Config, model: ModelConfig) -> str:
    """The default (first) model owns the root, every other one its own prefix; the front door rewrites for the first."""
    return "/" if model is config.models[0] else models_path(model.name)


def application_name(model: ModelConfig) -> str:
    """Serve's name for the model's application."""
    return model.name.strip("/").replace("/", "--")


def engine_configs(config: Config, *, default_engine: str, device: str, drain_s: int) -> list[EngineConfig]:
    """What each model's replicas are started with; ``default_engine`` and ``device`` are the image's.

    Of the node's ``drain_s`` the first half is left for a replica's successor to start, the second for its streams to end:
    Serve stops a replica when a drained node's deadline is no further away than the replica's own grace.

    Raises:
        ConfigError: an unknown engine, or arguments that it refuses.
        ModelNotFoundError: a model path that is not there.
    """
    grace = max(drain_s // 2, 1)
    return [_engine_config(model, default_engine, device, grace) for model in config.models]


def _engine_config(model: ModelConfig, default_engine: str, device: str, grace_s: int) -> EngineConfig:
    registry = get_registry()
    info = registry.get(model.engine or default_engine)
    if model.nodes_per_replica > 1 and not info.spans_nodes:
        raise ConfigError(f"models[{model.name}].nodes_per_replica: engine {info.name} runs on one node only; set it to 1.")
    builder = registry.config_builder(info.name)
    source = resolve(model.source) if info.weights else model.source
    use_cpu = (device if model.device == "auto" else model.device) == "cpu"
    user = user_config.of_model(model, source, use_cpu=use_cpu)
    valid, message = builder.validate_config(user)
    if not valid:
        raise ConfigError(f"models[{model.name}]: {message}")
    return of_arguments(
        info,
        builder.build_config(user),
        ranks=model.ranks,
        nodes=model.nodes_per_replica,
        use_cpu=use_cpu,
        cpus=model.cpus_per_replica,
        replicas=model.autoscaling.min if model.autoscaling else model.replicas,
        autoscaling=model.autoscaling,
        max_concurrent=model.max_concurrent,
        max_queued=model.max_queued,
        drain_s=grace_s,
    )


def files(engines: Iterable[EngineConfig]) -> tuple[ModelFiles, ...]:
    """What each model needs of a node, for engines that load weights."""
    return tuple(ModelFiles(one.name, one.model, one.engine, one.share.get("GPU", 0)) for one in engines if one.info.weights)


def notes(config: Config, engines: list[EngineConfig]) -> list[str]:
    """What became of the configuration otherwise than it says; a line each. Pure."""
    return [
        f"{model.name}: data_parallel_size of a dense model means copies that share nothing; it becomes {engine.replicas} replicas"
        for model, engine in zip(config.models, engines, strict=True)
        if not model.autoscaling and engine.replicas != model.replicas
    ]


def serve_schema(config: Config, engines: list[EngineConfig], *, port: int, host: str = "0.0.0.0") -> dict[str, Any]:
    """The declarative Serve configuration (ray.serve.schema.ServeDeploySchema); ``host`` and ``port`` are Ray's own ingress."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {"name": application_name(model), "route_prefix": route_prefix(config, model), **_application(engine)}
            for model, engine in zip(config.models, engines, strict=True)
        ],
    }


def _application(engine: EngineConfig) -> dict[str, Any]:
    """What is built, and apart from it what Serve may change without building anew, where the deployment is our factory's."""
    made = {"import_path": "ray_serve_cai.serving.app:build_application"}
    if not engine.changes_in_place:
        return made | {"args": engine.model_dump()}
    return made | {"args": engine.heavy().model_dump(), "deployments": [{"name": DEPLOYMENT, **engine.options()}]}


def build_application(arguments: dict[str, Any]) -> Application:
    """Serve's builder of one model's application. Imports no engine: the node it runs on may have another one."""
    config = EngineConfig.model_validate(arguments)
    return deployment_factory(config.info).create_deployment(config)
