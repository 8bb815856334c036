from typing import Any

import pytest

from ray_serve_cai.config import ModelConfig
from ray_serve_cai.engines.base import EngineConfig
from ray_serve_cai.engines.vllm_config import _OURS, VLLMConfigBuilder
from ray_serve_cai.errors import ConfigError


def build(device: str = "cpu", **fields: Any) -> EngineConfig:
    return VLLMConfigBuilder().build_config(ModelConfig(source="demo", **fields), model="/models/demo", device=device)


def test_on_cpus() -> None:
    built = build()
    given = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "distributed_executor_backend": "uni"}
    assert built.arguments == {"enforce_eager": True, "dtype": "bfloat16"} | given
    assert (built.engine, built.name, built.model) == ("vllm", "demo", "/models/demo")
    assert (built.ranks, built.gpus, built.cpus, built.replicas) == (1, 0, 1.0, 1)


def test_on_gpus() -> None:
    built = build("cuda", tensor_parallel_size=2, pipeline_parallel_size=2, replicas=3, cpus_per_replica=2.0)
    assert built.arguments == {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}
    assert (built.ranks, built.gpus, built.cpus, built.replicas) == (4, 4, 2.0, 3)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_the_user_says_wins(device: str) -> None:
    arguments = {"dtype": "float32", "enforce_eager": False, "distributed_executor_backend": "ray", "max_model_len": 512}
    assert build(device, tensor_parallel_size=2, engine_args=arguments).arguments.items() >= arguments.items()


@pytest.mark.parametrize("argument", _OURS)
def test_what_the_launcher_decides_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(engine_args={"--" + argument.replace("_", "-"): "mine"})
    for part in ("models[demo]", f"engine_args.{argument}", "'mine'", "cannot be set here", _OURS[argument]):
        assert part in str(caught.value)


def test_a_built_configuration_crosses_process_borders() -> None:
    built = build("cuda", engine_args={"a": [1, {"b": None}]})
    assert EngineConfig.model_validate(built.model_dump()) == built
