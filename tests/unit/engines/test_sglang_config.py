import json
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai.engines.base import ConfigBuilderProtocol
from ray_serve_cai.engines.sglang_config import _OURS, SGLangConfigBuilder
from ray_serve_cai.errors import ConfigError

BUILDER = SGLangConfigBuilder()


def build(**given: Any) -> dict[str, Any]:
    return BUILDER.build_config({"model": "demo", "model_source": "/models/demo"} | given)


def test_it_is_a_config_builder() -> None:
    assert isinstance(BUILDER, ConfigBuilderProtocol)


def test_on_cpus() -> None:
    built = build(use_cpu=True)
    assert (built["model"], built["served_model_name"]) == ("/models/demo", "demo")
    assert (built["tp_size"], built["pp_size"], built["dtype"], built["device"]) == (1, 1, "float32", "cpu")


def test_on_gpus() -> None:
    built = build(tensor_parallel_size=2, pipeline_parallel_size=3)
    assert (built["tp_size"], built["pp_size"], built["dtype"]) == (2, 3, "auto")
    assert "device" not in built


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gpu_memory_utilization": 0.5}, {"mem_fraction_static": 0.5}),
        ({"max_model_len": 512}, {"context_length": 512}),
        ({"trust_remote_code": True}, {"trust_remote_code": True}),
        ({"download_dir": "/weights"}, {"download_dir": "/weights"}),
        ({"load_format": "gguf"}, {"load_format": "gguf"}),
        ({"enable_prefix_caching": True}, {"disable_radix_cache": False}),
        ({"enable_prefix_caching": False}, {"disable_radix_cache": True}),
        ({"disable_log_stats": True}, {"log_level": "warning"}),
        ({"custom_chat_template": "chatml"}, {"chat_template": "chatml"}),
        ({"dtype": "half", "use_cpu": True}, {"dtype": "half"}),
        ({"engine_args": {"context-length": 7}, "max_model_len": 512}, {"context_length": 7}),
    ],
)
def test_each_key_has_sglangs_name(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert build(**given).items() >= expected.items()


def test_what_is_not_given_is_not_said() -> None:
    said = {"model", "served_model_name", "tp_size", "pp_size", "dtype", "load_format"}
    assert build(disable_log_stats=False, trust_remote_code=False).keys() == said
    assert build(**BUILDER.get_default_config()) == build()


def test_a_token_is_a_secret() -> None:
    built = build(hf_token="hf_secret")
    assert built["hf_token"].get_secret_value() == "hf_secret"
    assert "hf_secret" not in str(built)


@pytest.mark.parametrize("argument", _OURS)
def test_what_the_project_decides_is_refused(argument: str) -> None:
    given = {"model": "demo", "engine_args": {argument: "mine"}}
    valid, message = BUILDER.validate_config(given)
    assert not valid
    assert message is not None
    assert message.startswith(f"engine_args.{argument}: ")
    assert _OURS[argument] in message
    with pytest.raises(ConfigError) as caught:
        BUILDER.build_config(given)
    assert str(caught.value) == message


def test_a_correct_configuration() -> None:
    assert BUILDER.validate_config({"model": "demo", "engine_args": {"mem_fraction_static": 0.4}}) == (True, None)


def test_shared_keys_may_stand_among_the_engines_arguments() -> None:
    given = {"max_model_len": 512, "enable_prefix_caching": False, "schedule_policy": "lpm"}
    built = SGLangConfigBuilder().build_config({"model": "demo", "use_cpu": True, "engine_args": given})
    assert (built["context_length"], built["disable_radix_cache"], built["schedule_policy"]) == (512, True, "lpm")
    assert not given.keys() - {"schedule_policy"} & built.keys()


def test_a_shared_key_with_an_impossible_value() -> None:
    valid, message = SGLangConfigBuilder().validate_config({"model": "demo", "engine_args": {"max_model_len": "long"}})
    assert not valid
    assert "max_model_len: 'long'" in str(message)


@pytest.mark.parametrize("given", [{"enable_lora": True}, {"lora_paths": ["a=b"]}])
def test_adapters_need_a_gpu(given: dict[str, object]) -> None:
    valid, message = SGLangConfigBuilder().validate_config({"model": "demo", "use_cpu": True, "engine_args": given})
    assert not valid
    assert "pinned memory, which needs a GPU" in str(message)
    assert SGLangConfigBuilder().validate_config({"model": "demo", "use_cpu": False, "engine_args": given}) == (True, None)


@pytest.mark.parametrize(
    ("document", "refused"),
    [
        ({"model_type": "llama", "tie_word_embeddings": True}, True),
        ({"model_type": "llama", "tie_word_embeddings": False}, False),
        ({"model_type": "llama"}, False),
        ({"model_type": "qwen2", "tie_word_embeddings": True}, False),
    ],
)
def test_stages_of_a_tied_llama(document: dict[str, Any], refused: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document))
    given = {"model": "demo", "model_source": str(tmp_path), "pipeline_parallel_size": 2}
    ok, message = BUILDER.validate_config(given)
    assert ok is not refused
    assert not refused or str(message).startswith("pipeline_parallel_size: 2 stages of a Llama with tied embeddings are beyond SGLang")
    assert BUILDER.validate_config(given | {"pipeline_parallel_size": 1, "tensor_parallel_size": 2})[0]
