from typing import Any

import pytest

from ray_serve_cai.engines.base import EngineConfig, LLMEngineProtocol
from ray_serve_cai.engines.vllm_engine import VLLMEngine, _explained, option
from ray_serve_cai.errors import ConfigError, EngineError

CONFIG = EngineConfig(engine="vllm", name="demo", model="/models/demo", arguments={}, ranks=1, gpus=0, cpus=1.0)


@pytest.mark.parametrize(
    ("key", "value", "repeats", "words"),
    [
        ("max_model_len", 512, False, ["--max-model-len", "512"]),
        ("gpu_memory_utilization", 0.5, False, ["--gpu-memory-utilization", "0.5"]),
        ("dtype", "float32", False, ["--dtype", "float32"]),
        ("enforce_eager", True, False, ["--enforce-eager"]),
        ("enforce_eager", False, False, ["--no-enforce-eager"]),
        ("quantization", None, False, []),
        ("speculative_config", {"method": "ngram"}, False, ["--speculative-config", '{"method": "ngram"}']),
        ("allowed_origins", ["*"], False, ["--allowed-origins", '["*"]']),
        ("lora_modules", ["a=b", {"name": "c"}], True, ["--lora-modules", "a=b", '{"name": "c"}']),
        ("lora_modules", "a=b", True, ["--lora-modules", "a=b"]),
        ("middleware", [], True, ["--middleware"]),
    ],
)
def test_an_argument_as_words(key: str, value: Any, repeats: bool, words: list[str]) -> None:
    assert option(key, value, repeats=repeats) == words


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
    explained = _explained(error, CONFIG)
    assert type(explained) is kind
    assert str(explained) == "vLLM did not start model 'demo' from /models/demo: a b"


def test_a_long_error_is_cut() -> None:
    assert len(str(_explained(RuntimeError("x" * 5000), CONFIG))) < 700
