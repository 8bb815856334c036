from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.engines.registry import SGLANG, VLLM
from ray_serve_cai.errors import ConfigError

MINE = EngineInfo(name="mine", description="my own", config_builder="mine.config:Builder", engine="mine:Engine", distribution="my-engine")


def test_what_follows_from_the_rest() -> None:
    assert MINE.install == "pip install my-engine"
    assert MINE.deployment_factory == "ray_serve_cai.engines.replica:ReplicaFactory"
    assert (MINE.alternatives, MINE.one_replica_paths) == ((), ())
    assert replace(MINE, install="use the image mine").install == "use the image mine"


def test_a_card_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        MINE.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "7", "my-engine", "my_engine.v2", "a" * 42])
def test_names(name: str) -> None:
    assert replace(MINE, name=name).name == name


@pytest.mark.parametrize("name", ["", "Mine", "my engine", "-mine", "mine-", ".a", "a/b", "ä", "mine\n", "a=b", "a,b", "a" * 43])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(MINE, name=name)
    assert str(caught.value) == f"engine name {name!r} cannot be used; use lower case letters, digits, '.', '_' and '-'."


@pytest.mark.parametrize("part", ["config_builder", "engine", "deployment_factory"])
@pytest.mark.parametrize(
    "value", ["", "mine", "mine.Engine", "mine:", ":Engine", "mine:a.b", "my-mine:Engine", "mine:Engine()", "mine:Engine\n"]
)
def test_a_part_that_names_nothing(part: str, value: str) -> None:
    changes: dict[str, Any] = {part: value}
    with pytest.raises(ConfigError) as caught:
        replace(MINE, **changes)
    assert str(caught.value) == f"engine mine: {part} is {value!r}; name it as module:attribute."


@pytest.mark.parametrize("info", [VLLM, SGLANG], ids=lambda info: info.name)
def test_our_own_engines(info: EngineInfo) -> None:
    assert info.description
    assert all(path.startswith("/") for path in info.one_replica_paths)
