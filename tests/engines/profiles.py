"""What is engine-specific about the comparison: the engine's own server, and the arguments that both servers get.

One `Contract` for each engine; SGLang's comes with its image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.containers import IMAGE
from tests.engines.shapes import MODEL, Shape
from tests.engines.shapes_adapters import ADAPTERS
from tests.engines.shapes_chat import CHAT
from tests.engines.shapes_completions import COMPLETIONS
from tests.engines.shapes_errors import ERRORS
from tests.engines.shapes_other import OTHER
from tests.engines.shapes_pooling import POOLING


@dataclass(frozen=True)
class Profile:
    """The arguments of a pair of servers, as engine_args names them; ``environment`` is of both."""

    name: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contract:
    """One engine: what the product adds to a user's arguments, its own server's command, profiles and shapes."""

    engine: str
    image: str
    entrypoint: str
    added: Mapping[str, Any]
    profiles: Mapping[str, Profile]
    shapes: tuple[Shape, ...]

    def command(self, profile: Profile, *, port: int) -> list[str]:
        """The command line of the engine's own server, for the demo model and with what the product would have given it."""
        line = ["serve", f"/opt/ray-serve-cai/models/{MODEL}", "--served-model-name", MODEL, "--host", "0.0.0.0", "--port", str(port)]
        for key, value in {**self.added, **profile.arguments}.items():
            line += words(key, value)
        return line


def words(key: str, value: Any) -> list[str]:
    """One argument on a command line. On purpose not the product's own function: a fault in that one must show."""
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [flag, *value]
    return [flag, json.dumps(value) if isinstance(value, dict) else str(value)]


PROFILES = (
    # The thought's marks are words (granite), since the demo model has no tokens for them; and a pattern must hold from the
    # first token on, thoughts included, since only a pattern makes this model think and call.
    Profile(
        "generate",
        {
            "enable_auto_tool_choice": True,
            "tool_call_parser": "hermes",
            "reasoning_parser": "granite",
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True, "enable_in_reasoning": True},
            "enable_prompt_tokens_details": True,
        },
    ),
    # What is off by default, and adapters.
    Profile(
        "adapters",
        {
            "enable_lora": True,
            "lora_modules": ["strange=/adapters/strange"],
            "max_lora_rank": 8,
            "enable_scale_out": True,
            "enable_request_id_headers": True,
            "trust_request_chat_template": True,
            "enable_tokenizer_info_endpoint": True,
            "return_tokens_as_token_ids": True,
            "generation_config": "vllm",
            "max_model_len": 512,
        },
        {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
    ),
    Profile("embed", {"runner": "pooling", "convert": "embed"}),
    # A classifier made of two rows of the output layer, as rerankers such as Qwen3-Reranker are made.
    Profile(
        "score",
        {
            "runner": "pooling",
            "hf_overrides": {
                "architectures": ["LlamaForSequenceClassification"],
                "classifier_from_token": ["th", "ith"],
                "method": "from_2_way_softmax",
            },
        },
    ),
)

VLLM = Contract(
    engine="vllm",
    image=IMAGE,
    entrypoint="vllm",
    added={
        "enforce_eager": True,
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "distributed_executor_backend": "uni",
    },
    profiles={profile.name: profile for profile in PROFILES},
    shapes=(*CHAT, *COMPLETIONS, *OTHER, *ERRORS, *POOLING, *ADAPTERS),
)
