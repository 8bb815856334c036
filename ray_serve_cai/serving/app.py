"""Config -> Serve applications. `serve_schema` is pure; `build_application` runs as a task on any node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray_serve_cai.config import Config, ModelConfig
from ray_serve_cai.engines.base import EngineConfig
from ray_serve_cai.engines.registry import get_registry
from ray_serve_cai.sources import resolve

if TYPE_CHECKING:
    from ray.serve import Application


def route_prefix(config: Config, model: ModelConfig) -> str:
    """The default (first) model owns the root, every other one its own prefix; the front door rewrites for the first."""
    return "/" if model is config.models[0] else models_path(model)


def models_path(model: ModelConfig) -> str:
    """Where a model is always found."""
    return f"/models/{model.name.strip('/')}"


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
    registry = get_registry()
    return [
        registry.config_builder(model.engine or default_engine)
        .build_config(model, model=resolve(model.source), device=device if model.device == "auto" else model.device)
        .model_copy(update={"max_ongoing_requests": config.server.max_ongoing_requests, "drain_s": max(drain_s // 2, 1)})
        for model in config.models
    ]


def serve_schema(config: Config, engines: list[EngineConfig], *, port: int) -> dict[str, Any]:
    """The declarative Serve configuration (ray.serve.schema.ServeDeploySchema); ``port`` is Ray's own ingress."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": port},
        "applications": [
            {
                "name": application_name(model),
                "route_prefix": route_prefix(config, model),
                "import_path": "ray_serve_cai.serving.app:build_application",
                "args": engine.model_dump(),
            }
            for model, engine in zip(config.models, engines, strict=True)
        ],
    }


def build_application(arguments: dict[str, Any]) -> Application:
    """Serve's builder of one model's application. Imports no engine: the node it runs on may have another one."""
    config = EngineConfig.model_validate(arguments)
    return get_registry().deployment_factory(config.engine).create_deployment(config)
