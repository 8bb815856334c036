"""Any value that an engine's parser could hold arrives there as it was given; anything else is one readable error."""

import argparse
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.engines import arguments
from ray_serve_cai.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """An engine's parser in small, with every kind of argument that vLLM's and SGLang's have."""
    made = argparse.ArgumentParser()
    made.add_argument("source", nargs="?")
    made.add_argument("--max-model-len", type=int, default=7)
    made.add_argument("--dtype", choices=["auto", "half"], default="auto")
    made.add_argument("--chat-template")
    made.add_argument("--enable-metrics", action="store_true")
    made.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--lora-modules", nargs="+")
    made.add_argument("--middleware", nargs="*", default=[])
    made.add_argument("--plugin", action="append")
    made.add_argument("--speculative", type=json.loads)
    made.add_argument("-q", "--quiet", action="store_true")
    return made


def parse(given: dict[str, Any]) -> argparse.Namespace:
    return arguments.parse(parser(), ["org/x"], given, model="demo", engine="vLLM")


def error_of(given: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(given)
    return str(caught.value)


def test_defaults_are_the_parsers() -> None:
    assert vars(parse({})) == vars(parser().parse_args(["org/x"]))


@pytest.mark.parametrize(
    "given",
    [
        {"max_model_len": 512},
        {"dtype": "half"},
        {"chat_template": "--not-a-flag"},
        {"chat_template": ""},
        {"enable_metrics": True},
        {"enforce_eager": False},
        {"enforce_eager": True},
        {"lora_modules": ["a=b", "c"]},
        {"middleware": []},
        {"plugin": ["-a", "b"]},
        {"speculative": {"method": "ngram", "tokens": [1, 2]}},
        {"speculative": [True, None]},
        {"speculative": True},
        {"quiet": True},
        {"max_model_len": 512, "quiet": True, "plugin": ["x"]},
    ],
    ids=str,
)
def test_a_value_arrives_as_it_was_given(given: dict[str, Any]) -> None:
    assert vars(parse(given)).items() >= given.items()


@pytest.mark.parametrize("given", [dict.fromkeys(("max_model_len", "quiet", "plugin", "enforce_eager")), {"quiet": False}])
def test_none_is_the_engines_default_and_so_is_false_of_a_flag(given: dict[str, Any]) -> None:
    assert parse(given) == parse({})


@pytest.mark.parametrize(
    ("given", "value"), [({"lora_modules": [{"name": "a"}, True]}, ['{"name": "a"}', "true"]), ({"lora_modules": "a=b"}, ["a=b"])]
)
def test_what_is_no_text_in_a_list_becomes_json(given: dict[str, Any], value: list[str]) -> None:
    assert parse(given).lora_modules == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_model_length": 1}, "models[demo].engine_args.max_model_length: vLLM has no such argument; did you mean max_model_len?"),
        ({"zzz": 1}, "models[demo].engine_args.zzz: vLLM has no such argument; see the engine's documentation for its arguments."),
        ({"source": "x"}, "models[demo].engine_args.source: vLLM has no such argument"),
        ({"help": True}, "models[demo].engine_args.help: vLLM has no such argument"),
        ({"max_model_len": "many"}, "models[demo].engine_args: argument --max-model-len: invalid int value: 'many'."),
        ({"dtype": "int4"}, "models[demo].engine_args: argument --dtype: invalid choice: 'int4'"),
        ({"lora_modules": []}, "models[demo].engine_args: argument --lora-modules: expected at least one argument."),
        ({"quiet": "yes"}, "models[demo].engine_args: argument -q/--quiet: ignored explicit argument 'yes'."),
    ],
)
def test_an_error_is_one_line_that_names_the_argument(given: dict[str, Any], message: str) -> None:
    assert error_of(given).startswith(message)


plain = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
values = st.fixed_dictionaries(
    {},
    optional={
        "max_model_len": st.integers(),
        "chat_template": plain,
        "enable_metrics": st.booleans(),
        "enforce_eager": st.booleans(),
        "lora_modules": st.lists(plain.filter(lambda text: not text.startswith("-")), min_size=1, max_size=3),
        "plugin": st.lists(plain, min_size=1, max_size=3),
        "speculative": st.dictionaries(plain, st.integers() | plain | st.booleans() | st.none(), max_size=3),
    },
)


@given(values)
def test_any_value_arrives_as_it_was_given(given: dict[str, Any]) -> None:
    assert vars(parse(given)) == vars(parse({})) | given


@given(
    st.dictionaries(
        st.sampled_from(("max_model_len", "dtype", "quiet", "lora_modules", "speculative", "x")), st.integers() | plain | st.lists(plain)
    )
)
def test_anything_is_parsed_or_refused(given: dict[str, Any]) -> None:
    try:
        source, message = parse(given).source, ""
    except ConfigError as error:
        source, message = "org/x", str(error)
    assert source == "org/x"
    assert message.startswith("models[demo].engine_args") or not message
