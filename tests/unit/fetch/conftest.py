"""A hub on loopback, two models in it, an empty cache."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_serve_cai.fetch import lock, transfer
from tests.hub import FakeHub, demo

MIB = 1 << 20


def sharded() -> dict[str, bytes]:
    """A model of three shards, with all that publishers put beside them."""
    noise = random.Random(1)
    shards = {f"model-{number:05}-of-00003.safetensors": noise.randbytes(MIB + number) for number in (1, 2, 3)}
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "added_tokens.json": b"",
        "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
        "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("abc", shards, strict=True))}).encode(),
        **shards,
        "pytorch_model.bin": noise.randbytes(10),
        "original/consolidated.00.pth": noise.randbytes(10),
        "original/params.json": b"{}",
        "onnx/model.onnx": noise.randbytes(10),
        "README.md": b"# A model",
    }


LEFT_OUT = {"pytorch_model.bin", "original/consolidated.00.pth", "original/params.json", "onnx/model.onnx", "README.md"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as made:
        made.add("org/demo", demo())
        made.add("org/sharded", sharded())
        yield made


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a second try."""
    monkeypatch.setattr(transfer, "RETRY_S", 0)
    monkeypatch.setattr(lock, "POLL_S", 0.01)
