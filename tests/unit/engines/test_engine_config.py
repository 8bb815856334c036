import json
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments
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
