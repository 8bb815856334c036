from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.engines import sealed
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.errors import EngineError


def config(**arguments: Any) -> EngineConfig:
    return EngineConfig(info=VLLM, name="demo", model="demo", arguments=arguments)


SCALARS = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "sealed", "api_key"]), inner))
NAMES = st.sampled_from(["api_key", "admin_api_key", "hf_token", "max_model_len", "lora_modules"])


@given(st.dictionaries(NAMES, SCALARS | st.lists(st.text())))
def test_what_is_sealed_comes_back(arguments: dict[str, Any]) -> None:
    store: dict[str, str] = {}
    given = config(**arguments)
    assert sealed.unseal(sealed.seal(given, store.__setitem__), store.get) == given


@given(st.dictionaries(st.sampled_from(["max_model_len", "lora_modules", "max_tokens"]), VALUES))
def test_what_is_no_secret_stays_as_it_is(arguments: dict[str, Any]) -> None:
    given = config(**arguments)
    assert sealed.seal(given, lambda *_: pytest.fail("nothing to store")) == given
    assert sealed.unseal(given, lambda _: pytest.fail("nothing to look for")) == given


def test_no_secret_is_left() -> None:
    store: dict[str, str] = {}
    made = sealed.seal(config(api_key=["sk-one", "sk-two"], admin_api_key="sk-three", max_model_len=512), store.__setitem__)
    assert "sk-" not in made.model_dump_json()
    assert sorted(store.values()) == ["sk-one", "sk-three", "sk-two"]
    assert made.arguments["max_model_len"] == 512


def test_equal_secrets_start_nothing_anew() -> None:
    one, other, third = (sealed.seal(config(api_key=key), lambda *_: None) for key in ("sk-one", "sk-one", "sk-two"))
    assert one == other
    assert one != third


def test_another_distributions_deployment_gets_what_was_given() -> None:
    foreign = config(api_key="sk-one").model_copy(update={"info": replace(VLLM, deployment_factory="other:Factory")})
    assert sealed.seal(foreign, lambda *_: pytest.fail("nothing to store")) == foreign


def test_a_store_that_forgot() -> None:
    made = sealed.seal(config(api_key="sk-one"), lambda *_: None)
    with pytest.raises(EngineError, match=r"engine_args\.api_key: its value is not in the cluster's store any more; start the head anew"):
        sealed.unseal(made, lambda _: None)


def test_the_secrets_of_a_configuration() -> None:
    assert sealed.values(config(api_key=["sk-one", "sk-two", ""], admin_api_key="sk-three", max_tokens=5, hf_token=None)) == [
        "sk-one",
        "sk-two",
        "sk-three",
    ]
