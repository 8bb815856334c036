import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_serve_cai import config, state
from ray_serve_cai.config import Config
from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import SGLANG, VLLM
from ray_serve_cai.errors import ConfigError, ModelNotFoundError
from ray_serve_cai.serving import app

REPLICAS = "ray_serve_cai.engines.replica:ReplicaFactory"


@pytest.fixture
def two_models() -> Config:
    models = [
        {"source": "org/first", "engine": "vllm", "replicas": 2, "max_concurrent": 5, "max_queued": 6},
        {"source": "org/second", "name": "small", "device": "cuda", "tensor_parallel_size": 2, "autoscaling": {"min": 2, "max": 4}},
    ]
    return config.parse({"models": models}, "my.yaml")


def engines_of(given: Config, **changes: Any) -> list[EngineConfig]:
    return app.engine_configs(given, **{"default_engine": "vllm", "device": "cpu", "drain_s": 7} | changes)


@pytest.mark.parametrize(
    ("name", "path", "application"),
    [("demo", "/models/demo", "demo"), ("org/a.b", "/models/org/a.b", "org--a.b"), ("/mnt/x", "/models/mnt/x", "mnt--x")],
)
def test_names_and_paths(name: str, path: str, application: str) -> None:
    model = config.parse({"models": [{"source": "x", "name": name}]}, "my.yaml").models[0]
    assert (state.models_path(model.name), app.application_name(model)) == (path, application)


def test_the_first_model_owns_the_root(two_models: Config) -> None:
    assert [app.route_prefix(two_models, model) for model in two_models.models] == ["/", "/models/small"]


def test_engines_of_a_configuration(two_models: Config) -> None:
    first, second = engines_of(two_models)
    assert (first.name, first.model, first.gpus, first.replicas, first.drain_s) == ("org/first", "org/first", 0, 2, 3)
    assert (first.max_concurrent, first.max_queued, first.autoscaling) == (5, 6, None)
    assert (second.name, second.model, second.gpus, second.ranks) == ("small", "org/second", 2, 2)
    assert (second.replicas, second.autoscaling, second.surge) == (2, two_models.models[1].autoscaling, 0)


def test_a_model_without_an_engine_takes_the_images(two_models: Config) -> None:
    with pytest.raises(ConfigError, match="engine is 'tgi', which is not registered"):
        engines_of(two_models, default_engine="tgi")


def test_an_unknown_engine() -> None:
    given = config.parse({"models": [{"source": "demo", "engine": "vlm"}]}, "my.yaml")
    with pytest.raises(ConfigError, match="did you mean vllm"):
        engines_of(given)


def test_an_argument_that_the_engine_refuses_names_the_model() -> None:
    given = config.parse({"models": [{"source": "demo", "engine_args": {"port": 1}}]}, "my.yaml")
    with pytest.raises(ConfigError, match=r"^models\[demo\]: engine_args\.port: 1 cannot be set here; it follows from RSCAI_PORT"):
        engines_of(given)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    given = config.parse({"models": [{"source": str(tmp_path / "no"), "name": "no"}]}, "my.yaml")
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        engines_of(given)


def test_the_schema(two_models: Config) -> None:
    engines = engines_of(two_models)
    assert app.serve_schema(two_models, engines, port=81) == {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 81},
        "applications": [
            {
                "name": "org--first",
                "route_prefix": "/",
                "import_path": "ray_serve_cai.serving.app:build_application",
                "args": engines[0].heavy().model_dump(),
                "deployments": [{"name": "engine", **engines[0].options()}],
            },
            {
                "name": "small",
                "route_prefix": "/models/small",
                "import_path": "ray_serve_cai.serving.app:build_application",
                "args": engines[1].heavy().model_dump(),
                "deployments": [{"name": "engine", **engines[1].options()}],
            },
        ],
    }


def test_a_factory_of_others_is_given_all_that_there_is(two_models: Config) -> None:
    """Serve refuses options of deployments that an application does not have, and the names are the factory's."""
    foreign = [engine.model_copy(update={"info": replace(VLLM, deployment_factory="theirs:Factory")}) for engine in engines_of(two_models)]
    first = app.serve_schema(two_models, foreign, port=81)["applications"][0]
    assert first["args"] == foreign[0].model_dump()
    assert "deployments" not in first


@pytest.mark.parametrize("info", [VLLM, SGLANG], ids=lambda info: info.name)
@pytest.mark.parametrize("changes", [{"replicas": 7}, {"max_concurrent": 7}, {"max_queued": 7}, {"drain_s": 7}, {"surge": 7}])
def test_what_serve_builds_stays_the_same_where_no_replica_must_start_anew(
    two_models: Config, changes: dict[str, int], info: EngineInfo
) -> None:
    """Serve starts every replica anew where an application's import path or arguments change."""

    def built(engine: EngineConfig) -> tuple[str, str]:
        application = app.serve_schema(two_models, [engine, engines[1]], port=81)["applications"][0]
        return application["import_path"], json.dumps(application["args"])

    engines = engines_of(two_models)
    one = engines[0].model_copy(update={"info": info})
    assert built(one.model_copy(update=changes)) == built(one)


def test_ray_serve_takes_the_schema(two_models: Config) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed", exc_type=ImportError)
    engines = engines_of(two_models)
    parsed = schema.ServeDeploySchema.model_validate(app.serve_schema(two_models, engines, port=81))
    assert [one.route_prefix for one in parsed.applications] == ["/", "/models/small"]
    assert [one.deployments[0].num_replicas for one in parsed.applications] == [2, "auto"]


def test_an_application_comes_from_the_engines_factory(two_models: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines_of(two_models)[0]

    def deployment_factory(info: EngineInfo) -> SimpleNamespace:
        return SimpleNamespace(create_deployment=lambda given: (info.name, given))

    monkeypatch.setattr(app, "deployment_factory", deployment_factory)
    assert app.build_application(engine.model_dump()) == ("vllm", engine)


def test_a_node_that_does_not_know_the_engine_builds_the_application_all_the_same(two_models: Config) -> None:
    """Serve builds an application as a task on any node; the plugin that brought the engine may not be on that one."""
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed", exc_type=ImportError)
    engine = engines_of(two_models)[0]
    foreign = engine.model_copy(update={"info": replace(VLLM, name="only-there", deployment_factory=REPLICAS)})
    made = app.build_application(json.loads(json.dumps(foreign.model_dump())))
    assert made._bound_deployment.ray_actor_options["fallback_strategy"] == [{"label_selector": {"rscai/engine.only-there": "true"}}]
