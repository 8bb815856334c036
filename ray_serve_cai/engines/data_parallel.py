"""Data parallelism: the engine's own where its ranks work together, replicas where they would only stand side by side. Pure.

A mixture of experts is spread over all of its data-parallel ranks. Those of a dense model share nothing: as replicas each has a health,
a start and an end of its own (vLLM 0.32 says so itself: vllm/v1/engine/core.py treats them as independent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_serve_cai.engines import model_config

_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
_TEXT = ("thinker_config", "llm_config", "language_config", "lm_config", "text_config")


def is_mixture_of_experts(document: Mapping[str, Any]) -> bool:
    """Whether a model's ``config.json`` is of a mixture of experts, as vLLM 0.32 decides it.

    It looks at the number of experts of the text model, or of its blocks (vllm/transformers_utils/model_arch_config_convertor.py).
    """
    text = document
    while inner := next((text[key] for key in _TEXT if isinstance(text.get(key), Mapping)), None):
        text = inner
    counts = [text[key] for key in _EXPERTS if text.get(key) is not None][:1]
    if not any(counts):
        blocks = text.get("block_configs")
        experts = [block for block in blocks if isinstance(block, Mapping)] if isinstance(blocks, list) else []
        counts = [block.get("n_routed_experts") for block in experts if block.get("block_type") == "moe"]
    flat = [number for count in counts for number in (count[:1] if isinstance(count, list) else [count])]
    return any(isinstance(number, int) and number > 0 for number in flat)


def experts(model: str) -> bool | None:
    """Whether the files of a model say that it is a mixture of experts; None where they are not here."""
    document = model_config.read(model)
    return None if document is None else is_mixture_of_experts(document)


def size(arguments: Mapping[str, Any]) -> int:
    """How often an engine with these arguments has the model in one replica, each time with all of its ranks.

    Attention alone may be data-parallel inside the ranks that are there anyway (SGLang); that adds none.
    """
    if arguments.get("enable_dp_attention") or arguments.get("attn_dp_size", 1) != 1:
        return 1
    number = next((arguments[key] for key in ("data_parallel_size", "dp_size") if arguments.get(key) is not None), 1)
    return max(int(number), 1) if str(number).isdecimal() else 1
