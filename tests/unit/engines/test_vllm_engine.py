import pytest

from ray_serve_cai.engines.base import LLMEngineProtocol
from ray_serve_cai.engines.engine_config import EngineConfig, start_error
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.engines.vllm_engine import VLLMEngine
from ray_serve_cai.errors import ConfigError, EngineError

CONFIG = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={})


def test_it_is_an_engine() -> None:
    engine = VLLMEngine(CONFIG)
    assert isinstance(engine, LLMEngineProtocol)
    assert (engine.engine_type, engine.model_name) == ("vllm", "demo")


async def test_an_engine_that_has_not_started() -> None:
    engine = VLLMEngine(CONFIG)
    with pytest.raises(EngineError, match="'demo' has not started"):
        engine.asgi_app()
    with pytest.raises(EngineError, match="'demo' has not started"):
        await engine.check_health()
    await engine.shutdown()


@pytest.mark.parametrize(("error", "kind"), [(ValueError("a\n  b"), ConfigError), (RuntimeError("a\nb"), EngineError)])
def test_vllms_own_error_becomes_one_line(error: Exception, kind: type[Exception]) -> None:
    explained = start_error("vLLM", CONFIG, error)
    assert type(explained) is kind
    assert str(explained) == "vLLM did not start model 'demo' from /models/demo: a b"


def test_a_long_error_is_cut() -> None:
    assert len(str(start_error("vLLM", CONFIG, RuntimeError("x" * 5000)))) < 700
