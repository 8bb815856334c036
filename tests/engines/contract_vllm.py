"""vLLM's own server, the arguments that both servers get, and what they are asked."""

from __future__ import annotations

from tests.containers import IMAGE
from tests.engines.contract import MODEL_PATH, Contract, Profile
from tests.engines.shapes_adapters import ADAPTERS
from tests.engines.shapes_chat import CHAT
from tests.engines.shapes_completions import COMPLETIONS
from tests.engines.shapes_errors import ERRORS
from tests.engines.shapes_other import OTHER
from tests.engines.shapes_pooling import POOLING

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

PARSED = "its parser's answer depends on which tokens fell into one delta, and vLLM joins those that wait for a slow reader"

VLLM = Contract(
    engine="vllm",
    image=IMAGE,
    entrypoint="vllm",
    start=("serve", MODEL_PATH),
    ready="/health",
    added={
        "enforce_eager": True,
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "distributed_executor_backend": "uni",
    },
    profiles={profile.name: profile for profile in PROFILES},
    shapes=(*CHAT, *COMPLETIONS, *OTHER, *ERRORS, *POOLING, *ADAPTERS),
    unsteady=dict.fromkeys(("chat-stream-reasoning", "chat-stream-tool-auto", "chat-stream-tool-auto-two"), PARSED),
)
