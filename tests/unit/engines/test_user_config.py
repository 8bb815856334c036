"""Whatever a caller hands over is a configuration or one readable error, and a token is in neither."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import config
from ray_serve_cai.engines import user_config
from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.user_config import UserConfig
from ray_serve_cai.engines.vllm_config import _OURS, build_vllm_engine_config, validate_vllm_config
from ray_serve_cai.errors import ConfigError

KEYS = tuple(UserConfig.model_fields)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3), max_leaves=5
)
mistakes = st.dictionaries(st.sampled_from((*KEYS, "modl", "hf_tokn")) | st.text(max_size=10), values, max_size=8)
tokens = st.text("0123456789abcdef", min_size=20, max_size=40).map("hf_{}".format)
names = st.text(min_size=1, max_size=30)
free_arguments = st.text("abcdefgh_-", min_size=1, max_size=12).filter(
    lambda name: (
        name.lstrip("-").replace("-", "_") not in {*_OURS, "model", "served_model_name", "tensor_parallel_size", "pipeline_parallel_size"}
    )
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model_source": names,
    "engine": names,
    "port": st.integers(1, 65535),
    "tensor_parallel_size": st.integers(1, 8),
    "pipeline_parallel_size": st.integers(1, 8),
    "num_replicas": st.integers(1, 9),
    "use_cpu": st.booleans(),
    "dtype": st.sampled_from(("auto", "half", "float16", "bfloat16", "float", "float32")),
    "gpu_memory_utilization": st.floats(0, 1, exclude_min=True),
    "max_model_len": st.integers(1, 1 << 20),
    "trust_remote_code": st.booleans(),
    "download_dir": names,
    "load_format": names,
    "hf_token": tokens,
    "enable_prefix_caching": st.booleans(),
    "disable_log_stats": st.booleans(),
    "custom_chat_template": st.text(max_size=20),
    "engine_args": st.dictionaries(free_arguments, st.integers() | st.text(max_size=5), max_size=3),
}
correct = st.fixed_dictionaries({"model": names}, optional={name: st.none() | strategy for name, strategy in FIELDS.items()})


def error_of(given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        user_config.parse(given)
    return str(caught.value)


def test_the_least_there_is() -> None:
    parsed = user_config.parse({"model": "demo"})
    assert (parsed.model, parsed.model_source, parsed.engine, parsed.port) == ("demo", "demo", None, 8000)
    assert (parsed.ranks, parsed.num_replicas, parsed.use_cpu, parsed.dtype) == (1, 1, None, "auto")
    assert parsed.engine_args == {}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"model": "a"}, ("a", "a")),
        ({"model_source": "b"}, ("b", "b")),
        ({"model": "a", "model_source": "b"}, ("a", "b")),
        ({"model": "a", "model_source": ""}, ("a", "a")),
        ({"model": None, "model_source": "b"}, ("b", "b")),
    ],
)
def test_name_and_source_follow_from_each_other(names: dict[str, Any], expected: tuple[str, str]) -> None:
    parsed = user_config.parse(names)
    assert (parsed.model, parsed.model_source) == expected


@pytest.mark.parametrize("nothing", [None, ""])
def test_none_and_empty_count_as_not_given(nothing: object) -> None:
    assert user_config.parse({"model": "demo"} | dict.fromkeys(FIELDS, nothing)) == user_config.parse({"model": "demo"})


def test_every_key_says_what_it_means() -> None:
    assert [name for name, field in UserConfig.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "model: missing; name one, for example demo or Qwen/Qwen3-0.6B."),
        ({"model": ""}, "model: missing; name one, for example demo or Qwen/Qwen3-0.6B."),
        (None, "the configuration is NoneType; use a mapping, for example {'model': 'demo'}."),
        ([{"hf_token": "hf_secret"}], "the configuration is list; use a mapping, for example {'model': 'demo'}."),
        ({"model": "a", "num_replica": 2}, "num_replica: unknown key; did you mean num_replicas?"),
        ({"model": "a", "hf_tokn": "hf_secret"}, "hf_tokn: unknown key; did you mean hf_token?"),
        ({"model": "a", "hf_token": ["hf_secret"]}, "hf_token: Input should be a valid string."),
        ({"model": "a", "port": 0}, "port: 0: Input should be greater than or equal to 1."),
        ({"model": "a", "port": "80"}, "port: '80': Input should be a valid integer."),
        (
            {"model": "a", "dtype": "int4"},
            "dtype: 'int4': Input should be 'auto', 'half', 'float16', 'bfloat16', 'float' or 'float32'.",
        ),
        (
            {"model": "a", "engine_args": {"model": "b", "hf_token": "hf_secret"}},
            "engine_args: a mapping: engine_args.model is set by the model's own keys; move the value there.",
        ),
        (
            {"port": 0, "tensor_parallel_size": 0},
            "model: missing; name one, for example demo or Qwen/Qwen3-0.6B.; port: 0: Input should be greater than or equal to 1.; "
            "tensor_parallel_size: 0: Input should be greater than or equal to 1.",
        ),
    ],
)
def test_an_error_names_key_value_and_fix(given: Any, message: str) -> None:
    assert error_of(given) == message


def test_an_unknown_key_far_from_all_lists_them() -> None:
    assert error_of({"model": "a", "zzzzzz": 1}) == f"zzzzzz: unknown key; known keys: {', '.join(KEYS)}."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"--port": 1}, "engine_args.port: 1 cannot be set here; it follows from RSCAI_PORT."),
        ({"hf-token": "hf_secret"}, "engine_args.hf_token: its value cannot be set here; it follows from HF_TOKEN."),
    ],
)
def test_what_the_project_decides_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        user_config.validate({"model": "a", "engine_args": arguments}, {"port": "RSCAI_PORT", "hf_token": "HF_TOKEN"})
    assert str(caught.value) == message


def test_a_model_of_a_file_is_such_a_mapping_too() -> None:
    entry = {"source": "org/x", "name": "chat", "engine": "vllm", "replicas": 2, "tensor_parallel_size": 2, "pipeline_parallel_size": 3}
    model = config.parse({"models": [entry | {"engine_args": {"max-model-len": 512}}]}, "my.yaml").models[0]
    parsed = user_config.parse(user_config.of_model(model, "/cache/x", use_cpu=True))
    assert (parsed.model, parsed.model_source, parsed.engine, parsed.num_replicas) == ("chat", "/cache/x", "vllm", 2)
    assert (parsed.ranks, parsed.use_cpu, parsed.engine_args) == (6, True, {"max_model_len": 512})


def test_the_defaults_change_nothing() -> None:
    assert user_config.defaults().keys() <= set(KEYS)
    assert user_config.parse(user_config.defaults() | {"model": "demo"}) == user_config.parse({"model": "demo"})


@given(mistakes)
def test_validating_never_raises(given: dict[str, Any]) -> None:
    valid, message = validate_vllm_config(given)
    if valid:
        assert message is None
        build_vllm_engine_config(given)
    else:
        assert message
        with pytest.raises(ConfigError) as caught:
            build_vllm_engine_config(given)
        assert str(caught.value) == message


@given(values)
def test_no_mapping_is_no_configuration(given: Any) -> None:
    if not isinstance(given, Mapping):
        assert validate_vllm_config(given)[0] is False


@given(
    mistakes, tokens, st.sampled_from(("str", "list", "mapping", "bytes")), st.sampled_from((None, "engine_args", "engine_args and model"))
)
def test_no_message_holds_the_token(given: dict[str, Any], token: str, form: str, also: str | None) -> None:
    forms: dict[str, Any] = {"str": token, "list": [token], "mapping": {"a": token}, "bytes": token.encode()}
    given = given | {"hf_token": forms[form]}
    if also:
        given["engine_args"] = {"hf_token": token} | ({"model": "x"} if "model" in also else {})
    assert token not in (validate_vllm_config(given)[1] or "")


@given(correct)
def test_a_correct_configuration_is_taken(given: dict[str, Any]) -> None:
    assert validate_vllm_config(given) == (True, None)
    parsed = user_config.parse(given)
    assert user_config.parse(parsed.model_dump()) == parsed
    assert "hf_" not in repr(parsed.hf_token)


@given(correct)
def test_its_arguments_make_an_engine_configuration_that_crosses_process_borders(given: dict[str, Any]) -> None:
    parsed = user_config.parse(given)
    arguments = build_vllm_engine_config(given)
    assert arguments.items() >= parsed.engine_args.items()
    built = of_arguments(VLLM, arguments, ranks=parsed.ranks, use_cpu=bool(parsed.use_cpu))
    assert (built.name, built.model) == (parsed.model, parsed.model_source)
    assert EngineConfig.model_validate_json(built.model_dump_json()) == built.model_copy(update={"hf_token": None})
    assert built.hf_token == parsed.hf_token
    assert not {"model", "served_model_name", "hf_token", "port"} & built.arguments.keys()
    if parsed.hf_token:
        assert parsed.hf_token.get_secret_value() not in built.model_dump_json()
