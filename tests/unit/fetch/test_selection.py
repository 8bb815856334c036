"""Which files are downloaded."""

import pytest

from ray_serve_cai.fetch.selection import File, split

pytestmark = pytest.mark.issue(6)
NEEDED = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "merges.txt",
    "chat_template.jinja",
    "modeling_custom.py",
    "1_Pooling/config.json",
    "LICENSE",
]
DUPLICATES = ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "weights.pt"]
UNREAD = [
    "original/model.safetensors",
    "onnx/model.onnx",
    "model.Q4_K_M.gguf",
    "flax_model.msgpack",
    "tf_model.h5",
    "a.pth",
    "README.md",
    "x.PNG",
]


def names(files: list[File]) -> list[str]:
    return [file.name for file in files]


@pytest.mark.parametrize("weights", [["model.safetensors"], ["model-00001-of-00001.safetensors", "model.safetensors.index.json"]], ids=len)
def test_beside_safetensors(weights: list[str]) -> None:
    kept, left_out = split(File(name, 1, "") for name in [*NEEDED, *weights, *DUPLICATES, *UNREAD])
    assert names(kept) == [*NEEDED, *weights]
    assert names(left_out) == [*DUPLICATES, *UNREAD]


def test_without_safetensors() -> None:
    kept, left_out = split(File(name, 1, "") for name in [*NEEDED, *DUPLICATES, *UNREAD])
    assert names(kept) == [*NEEDED, *DUPLICATES]
    assert names(left_out) == UNREAD
