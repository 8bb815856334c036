"""LoRA adapters for the demo model: random, strong enough to change its answers, and the same in each run."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from tests.containers import ROOT

RANK = 8
ALPHA = 16


def make(directory: Path, *, seed: int, strength: float = 0.08) -> Path:
    """Write an adapter in PEFT's format (adapter_config.json, adapter_model.safetensors), readable for any user.

    Args:
        seed: adapters with different seeds answer differently.
        strength: standard deviation of the weights.
    """
    directory.mkdir(parents=True)
    model = json.loads((ROOT / "images/demo/model/config.json").read_text())
    hidden, head = model["hidden_size"], model["head_dim"]
    outputs = {"q_proj": model["num_attention_heads"] * head, "v_proj": model["num_key_value_heads"] * head}
    weights: dict[str, tuple[int, int]] = {}
    for layer in range(model["num_hidden_layers"]):
        for module, width in outputs.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = (RANK, hidden)
            weights[f"{name}.lora_B.weight"] = (width, RANK)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "demo",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(outputs),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    (directory / "adapter_model.safetensors").write_bytes(safetensors(weights, random.Random(seed), strength))
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    return directory


def safetensors(shapes: dict[str, tuple[int, int]], source: random.Random, strength: float) -> bytes:
    """Random float32 tensors; format: github.com/huggingface/safetensors, eight bytes of header length, a JSON header, the data."""
    header: dict[str, object] = {}
    data = b""
    for name, (rows, columns) in shapes.items():
        numbers = [source.gauss(0, strength) for _ in range(rows * columns)]
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
