"""The parts of the adapter that need no SGLang; the engine itself is tested where it is installed."""

import pytest

from ray_serve_cai.engines.base import LLMEngineProtocol
from ray_serve_cai.engines.engine_config import EngineConfig, start_error
from ray_serve_cai.engines.registry import SGLANG
from ray_serve_cai.engines.sglang_engine import SGLangEngine, cpu_groups
from ray_serve_cai.errors import ConfigError, EngineError

CONFIG = EngineConfig(info=SGLANG, name="demo", model="/models/demo", arguments={})


def test_it_is_an_engine() -> None:
    engine = SGLangEngine(CONFIG)
    assert isinstance(engine, LLMEngineProtocol)
    assert (engine.engine_type, engine.model_name) == ("sglang", "demo")


async def test_an_engine_that_has_not_started() -> None:
    engine = SGLangEngine(CONFIG)
    with pytest.raises(EngineError, match="'demo' has not started"):
        engine.asgi_app()
    with pytest.raises(EngineError, match="'demo' has not started"):
        await engine.check_health()
    await engine.shutdown()


@pytest.mark.parametrize(("error", "kind"), [(ValueError("a\n  b"), ConfigError), (RuntimeError("a\nb"), EngineError)])
def test_sglangs_own_error_becomes_one_line(error: Exception, kind: type[Exception]) -> None:
    explained = start_error("SGLang", CONFIG, error)
    assert type(explained) is kind
    assert str(explained) == "SGLang did not start model 'demo' from /models/demo: a b"
    assert len(str(start_error("SGLang", CONFIG, RuntimeError("x" * 5000)))) < 700


@pytest.mark.parametrize(
    ("ranks", "nodes", "cpus", "groups"),
    [
        (2, 2, [0, 1], "0,1|0,1"),
        (2, 1, [0, 1], "0|1"),
        (4, 2, [0, 1, 2, 3], "0,1|2,3|0,1|2,3"),
        (2, 1, [5], "5|5"),
        (3, 1, [0, 1], "0|1|0"),
    ],
)
def test_the_ranks_of_a_node_share_its_cpus(ranks: int, nodes: int, cpus: list[int], groups: str) -> None:
    assert cpu_groups(CONFIG.model_copy(update={"ranks": ranks, "nodes": nodes}), cpus) == groups
