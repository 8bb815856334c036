import json
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ray_serve_cai.config import AutoscalingConfig
from ray_serve_cai.engines.engine_config import LIGHT, EngineConfig, Limits, of_arguments
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.errors import ConfigError

TOKEN = "hf_0123456789"


def made(arguments: dict[str, Any], **more: Any) -> EngineConfig:
    return of_arguments(VLLM, arguments, **{"ranks": 1, "use_cpu": True} | more)


def test_model_and_name_are_taken_out_of_the_arguments() -> None:
    given = {"model": "/models/demo", "served_model_name": "demo", "dtype": "auto"}
    config = made(given)
    assert (config.engine, config.name, config.model, config.arguments) == ("vllm", "demo", "/models/demo", {"dtype": "auto"})
    assert given["model"] == "/models/demo"


def test_a_model_without_a_name_has_its_source_as_name() -> None:
    assert made({"model": "org/x"}).name == "org/x"


@pytest.mark.parametrize(("use_cpu", "gpus"), [(True, 0), (False, 4)])
def test_each_rank_gets_a_gpu(use_cpu: bool, gpus: int) -> None:
    config = made({"model": "x"}, ranks=4, use_cpu=use_cpu, replicas=2, cpus=3.0)
    assert (config.ranks, config.gpus, config.replicas, config.cpus) == (4, gpus, 2, 3.0)


@pytest.mark.parametrize("arguments", [{}, {"model": ""}, {"model": None}, {"model": 5}])
def test_arguments_without_a_model(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^model: .* in the arguments of engine vllm is no model; name one, for example demo\.$"):
        made(arguments)


@pytest.mark.parametrize("token", [TOKEN, SecretStr(TOKEN)])
def test_a_token_is_in_no_dump(token: object) -> None:
    config = made({"model": "x", "hf_token": token})
    assert config.hf_token is not None
    assert config.hf_token.get_secret_value() == TOKEN
    assert "hf_token" not in config.arguments
    assert TOKEN not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


def test_it_crosses_process_borders() -> None:
    config = made({"model": "x", "a": [1, {"b": None}]}, labelled=False, drain_s=7)
    assert EngineConfig.model_validate(json.loads(json.dumps(config.model_dump()))) == config


def test_it_is_what_it_is() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made({"model": "x"}).replicas = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        made({"model": "x"}, gpu=1)


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"gpus": 4, "cpus": 2.0}, {"CPU": 2, "GPU": 4}),
        ({"gpus": 4, "nodes": 2}, {"CPU": 1, "GPU": 2}),
        ({"ranks": 4, "nodes": 2}, {"CPU": 1}),
    ],
)
def test_each_node_gives_an_equal_share(changes: dict[str, Any], share: dict[str, float]) -> None:
    assert made({"model": "x"}).model_copy(update=changes).share == share


@pytest.mark.parametrize(
    ("changes", "alone"),
    [({}, True), ({"replicas": 2}, False), ({"autoscaling": AutoscalingConfig(max=2)}, False)],  # type: ignore[call-arg]
)
def test_what_a_replica_is_told(changes: dict[str, Any], alone: bool) -> None:
    config = made({"model": "x"}, max_concurrent=5, max_queued=7, **changes)
    assert config.limits == Limits(max_concurrent=5, max_queued=7, alone=alone)
    assert Limits.model_validate(config.options()["user_config"]) == config.limits


def test_options_of_a_fixed_number_of_copies() -> None:
    assert made({"model": "x"}, replicas=4, max_concurrent=5, max_queued=7, drain_s=9, surge=50).options() == {
        "num_replicas": 4,
        "max_ongoing_requests": 24,
        "graceful_shutdown_timeout_s": 9,
        "user_config": {"max_concurrent": 5, "max_queued": 7, "alone": False},
        "max_surge_percent": 50,
        "rolling_update_percentage": 0.25,
    }


def test_options_of_copies_by_load() -> None:
    scaled = AutoscalingConfig(min=2, max=8, target_ongoing_requests=3, upscale_delay_s=1, downscale_delay_s=2)
    options = made({"model": "x"}, replicas=2, autoscaling=scaled).options()
    assert (options["num_replicas"], options["rolling_update_percentage"]) == ("auto", 0.125)
    assert options["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 8,
        "target_ongoing_requests": 3,
        "upscale_delay_s": 1,
        "downscale_delay_s": 2,
    }


@pytest.mark.parametrize("more", [{"replicas": 3, "surge": 33}, {"replicas": 2, "autoscaling": AutoscalingConfig(min=2, max=1000)}])
def test_ray_serve_takes_the_options(more: dict[str, Any]) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed", exc_type=ImportError)
    options = made({"model": "x"}, **more).options()
    assert schema.DeploymentSchema.model_validate({"name": "engine", **options}).max_surge_percent == options["max_surge_percent"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("replicas", 2),
        ("autoscaling", AutoscalingConfig(max=2)),  # type: ignore[call-arg]
        ("max_concurrent", 2),
        ("max_queued", 2),
        ("drain_s", 2),
        ("surge", 2),
    ],
)
def test_what_serve_changes_without_starting_anew(field: str, value: object) -> None:
    config = made({"model": "x"})
    changed = config.model_copy(update={field: value})
    assert field in LIGHT
    assert changed != config
    assert changed.options() != config.options()
    assert changed.heavy() == config.heavy()


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "y"), ("arguments", {"a": 1}), ("ranks", 2), ("nodes", 2), ("gpus", 2), ("cpus", 2.0), ("hf_token", SecretStr(TOKEN))],
)
def test_what_starts_a_replica_anew(field: str, value: object) -> None:
    config = made({"model": "x"})
    assert config.model_copy(update={field: value}).heavy() != config.heavy()


def test_what_a_replica_is_started_with_keeps_the_token() -> None:
    config = made({"model": "x", "hf_token": TOKEN}, replicas=3)
    assert config.heavy() == config.heavy().heavy()
    assert config.heavy().hf_token == config.hf_token
