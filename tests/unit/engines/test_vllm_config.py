from typing import Any

import pytest

from ray_serve_cai.engines.base import ConfigBuilderProtocol
from ray_serve_cai.engines.vllm_config import _OURS, VLLMConfigBuilder, build_vllm_engine_config, validate_vllm_config
from ray_serve_cai.errors import ConfigError

BUILDER = VLLMConfigBuilder()


def build(**given: Any) -> dict[str, Any]:
    return BUILDER.build_config({"model": "demo", "model_source": "/models/demo"} | given)


def test_it_is_a_config_builder() -> None:
    assert isinstance(BUILDER, ConfigBuilderProtocol)


def test_on_cpus() -> None:
    assert build(use_cpu=True) == {
        "model": "/models/demo",
        "served_model_name": "demo",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "distributed_executor_backend": "uni",
        "dtype": "bfloat16",
        "load_format": "auto",
        "enforce_eager": True,
    }


@pytest.mark.parametrize("use_cpu", [False, None])
def test_on_gpus(use_cpu: bool | None) -> None:
    built = build(use_cpu=use_cpu, tensor_parallel_size=2, pipeline_parallel_size=2)
    assert (built["tensor_parallel_size"], built["pipeline_parallel_size"], built["distributed_executor_backend"]) == (2, 2, "mp")
    assert built["dtype"] == "auto"
    assert "enforce_eager" not in built


def test_each_key_has_vllms_name() -> None:
    given: dict[str, Any] = {
        "gpu_memory_utilization": 0.5,
        "max_model_len": 512,
        "trust_remote_code": True,
        "download_dir": "/weights",
        "load_format": "gguf",
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        "dtype": "half",
    }
    built = build(custom_chat_template="{{ messages }}", hf_token="hf_secret", use_cpu=True, **given)
    assert built.items() >= given.items()
    assert built["chat_template"] == "{{ messages }}"
    assert built["hf_token"].get_secret_value() == "hf_secret"
    assert "hf_secret" not in str(built)


def test_what_is_not_vllms_stays_out() -> None:
    assert (
        not {"port", "num_replicas", "engine", "use_cpu", "engine_args"} & build(port=1, num_replicas=2, engine="vllm", use_cpu=True).keys()
    )


def test_a_false_that_is_vllms_own_default_is_not_said() -> None:
    assert "trust_remote_code" not in build(trust_remote_code=False)


@pytest.mark.parametrize("use_cpu", [True, False])
def test_what_the_user_says_wins(use_cpu: bool) -> None:
    arguments = {"dtype": "float32", "enforce_eager": False, "distributed_executor_backend": "ray", "max_model_len": 512}
    built = build(use_cpu=use_cpu, tensor_parallel_size=2, dtype="half", max_model_len=7, engine_args=arguments)
    assert built.items() >= arguments.items()


def test_the_defaults_change_nothing() -> None:
    assert build(**BUILDER.get_default_config()) == build()


@pytest.mark.parametrize("argument", _OURS)
def test_what_the_project_decides_is_refused(argument: str) -> None:
    given = {"model": "demo", "engine_args": {"--" + argument.replace("_", "-"): "mine"}}
    valid, message = validate_vllm_config(given)
    assert not valid
    assert message is not None
    shown = "its value" if argument == "hf_token" else "'mine'"
    assert message == f"engine_args.{argument}: {shown} cannot be set here; it follows from {_OURS[argument]}."
    with pytest.raises(ConfigError) as caught:
        build_vllm_engine_config(given)
    assert str(caught.value) == message


def test_the_functions_are_the_builders() -> None:
    assert validate_vllm_config({"model": "demo"}) == BUILDER.validate_config({"model": "demo"}) == (True, None)
    assert build_vllm_engine_config({"model": "demo"}) == BUILDER.build_config({"model": "demo"})


def test_stages_on_cpus_are_warmed_up() -> None:
    """vLLM makes the buffers of a later stage when it warms up, and leaves that out where it is told to be eager."""
    given = {"model": "demo", "use_cpu": True}
    one, two = (VLLMConfigBuilder().build_config(given | {"pipeline_parallel_size": stages}) for stages in (1, 2))
    assert (one["enforce_eager"], "compilation_config" in one) == (True, False)
    assert (two["enforce_eager"], two["compilation_config"]) == (False, {"mode": 2, "backend": "eager"})
