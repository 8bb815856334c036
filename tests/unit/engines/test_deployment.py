from collections.abc import Callable
from typing import Any

import pytest

from ray_serve_cai.engines.deployment import EngineDeploymentFactory
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import SGLANG, VLLM, deployment_factory
from ray_serve_cai.engines.sglang_config import SGLangConfigBuilder, SGLangDeploymentFactory
from ray_serve_cai.engines.vllm_config import VLLMConfigBuilder, VLLMDeploymentFactory
from ray_serve_cai.engines.vllm_engine import create_vllm_deployment
from ray_serve_cai.errors import ConfigError

pytest.importorskip("ray.serve", reason="ray[serve] is not installed", exc_type=ImportError)

FACTORIES = [VLLMDeploymentFactory(), SGLangDeploymentFactory()]


def config_of(application: Any) -> EngineConfig:
    return EngineConfig.model_validate(application._bound_deployment.init_args[0])


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.info.name)
def test_a_mapping_of_arguments(factory: EngineDeploymentFactory) -> None:
    application: Any = factory.create_deployment({"model": "/models/demo", "served_model_name": "demo", "x": 1}, num_replicas=2)
    config = config_of(application)
    assert (config.info, config.name, config.model, config.arguments) == (factory.info, "demo", "/models/demo", {"x": 1})
    assert (config.ranks, config.gpus, config.labelled) == (1, 1, False)
    assert application._bound_deployment.num_replicas == 2


@pytest.mark.parametrize(("factory", "name"), [(FACTORIES[0], "tensor_parallel_size"), (FACTORIES[1], "tp_size")])
def test_the_number_of_ranks_has_the_engines_own_name(factory: EngineDeploymentFactory, name: str) -> None:
    config = config_of(factory.create_deployment({"model": "x", "pipeline_parallel_size": 2, "pp_size": 2}, tensor_parallel_size=4))
    assert config.arguments[name] == 4
    assert (config.ranks, config.gpus) == (8, 8)


def test_on_cpus_no_gpu_is_asked_for() -> None:
    config = config_of(create_vllm_deployment({"model": "x", "tensor_parallel_size": 2}, use_cpu=True))
    assert (config.ranks, config.gpus) == (2, 0)


@pytest.mark.parametrize(
    ("factory", "build"), [(FACTORIES[0], VLLMConfigBuilder().build_config), (FACTORIES[1], SGLangConfigBuilder().build_config)]
)
def test_what_the_config_builder_returns_fits(factory: EngineDeploymentFactory, build: Callable[..., dict[str, Any]]) -> None:
    given = {"model": "demo", "model_source": "/models/demo", "tensor_parallel_size": 2, "hf_token": "hf_secret"}
    application: Any = factory.create_deployment(build(given))
    config, token = config_of(application), application._bound_deployment.init_args[1]
    assert (config.name, config.model, config.ranks, config.gpus) == ("demo", "/models/demo", 2, 2)
    assert token.get_secret_value() == "hf_secret"
    assert "hf_secret" not in repr(application._bound_deployment.init_args)


def test_a_finished_configuration_is_deployed_as_it_is() -> None:
    config = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={}, replicas=3)
    application: Any = VLLMDeploymentFactory().create_deployment(config, num_replicas=7)
    assert config_of(application) == config.heavy()
    assert application._bound_deployment.num_replicas == 3


def test_arguments_without_a_model() -> None:
    with pytest.raises(ConfigError, match="in the arguments of engine sglang is no model"):
        SGLangDeploymentFactory().create_deployment({})


@pytest.mark.parametrize(("info", "kind"), [(VLLM, VLLMDeploymentFactory), (SGLANG, SGLangDeploymentFactory)])
def test_the_registry_knows_them(info: Any, kind: type) -> None:
    assert isinstance(deployment_factory(info), kind)
