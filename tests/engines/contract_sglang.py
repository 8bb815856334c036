"""SGLang's own server, the arguments that both servers get, and what they are asked."""

from __future__ import annotations

from tests.containers import SGLANG as IMAGE
from tests.engines.contract import MODEL_PATH, Contract, Profile
from tests.engines.generated import HUGE
from tests.engines.shapes import Shape
from tests.engines.shapes_chat import CHAT
from tests.engines.shapes_completions import COMPLETIONS
from tests.engines.shapes_errors import ERRORS
from tests.engines.shapes_other import OTHER
from tests.engines.shapes_pooling import POOLING
from tests.engines.shapes_sglang import SGLANG_EMBEDDINGS, SGLANG_SHAPES

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""As Ray gives it to a replica of one CPU; sums of floats depend on it."""
PROFILES = (
    # With this parser patterns hold from the first token on, thoughts included; with others they hold only after a thought.
    Profile("generate", {"tool_call_parser": "hermes", "reasoning_parser": "deepseek-v3", "enable_cache_report": True, "constrained_json_disable_any_whitespace": True, "random_seed": 1}, ONE_THREAD),
    Profile("embed", {"is_embedding": True}, ONE_THREAD),
)

VLLM_FIELDS = frozenset(
    {
        *("structured_outputs", "use_beam_search", "prompt_logprobs", "return_prompt_text", "allowed_token_ids", "bad_words", "cache_salt"),
        *("truncate_prompt_tokens", "repetition_detection", "request_id", "stream_interval", "include_stop_str_in_output", "documents"),
        *("logprob_token_ids", "return_tokens_as_token_ids", "include_reasoning", "embed_dtype", "use_activation", "vllm_xargs"),
        *("prompt_embeds", "texts"),
    }
)
"""SGLang overlooks them, and a request without them is there already."""
VLLM_PATHS = ("/pooling", "/score", "/rerank", "/v2/", "/inference/", "/cohere/", "/generative_scoring", "/tokenizer_info", "/version", "/load")

ANSWERED_OTHERWISE = {
    **dict.fromkeys(
        ("error-unknown-model", "error-unknown-model-completion", "error-unknown-lora", "error-stream-unknown-model", "message-unknown-model"),
        "SGLang answers for any name; the product refuses, as vLLM does",
    ),
    "error-embedding-unknown-model": "the same",
    **dict.fromkeys(("error-prompt-tokens", "error-prompt-negative", "error-embedding-token"), "a token id beyond the vocabulary ends SGLang's scheduler"),
    **dict.fromkeys(
        ("error-embedding-chat", "error-embedding-completion", "embedding-invocations"),
        "SGLang answers 500 or dies when a model that embeds is asked to generate",
    ),
    "error-logprobs-huge": "as do log probabilities of more tokens than there are",
    "error-n-huge": "SGLang's scheduler stands still for minutes",
}
"""tests/engines/test_suite.py looks at these."""
BY_CHANCE = {
    **dict.fromkeys(
        ("chat-n", "completion-n", "chat-stream-n", "completion-stream-n"),
        "on CPUs SGLang cannot seed a request, so its samples depend on which of them ran together",
    ),
    "openapi": "names Pydantic models in the order of a set",
}


BATCHED = frozenset(
    {"completion-batch-logprobs", "completion-of-several-prompts", "embeddings", "embeddings-of-tokens", "encode-texts", "v1-score", "generated"}
)
"""The last bits of their floats depend on whether SGLang runs the texts in one batch or in several, and on what its cache held before."""
ACCEPTED = frozenset(
    {
        *("error-limit-zero", "error-temperature-high", "error-top-k", "error-n-greedy", "error-logprobs-negative", "error-top-logprobs-alone"),
        *("error-stream-options-alone", "error-stop-empty", "error-continue", "error-template", "error-suffix", "error-logprobs"),
        *("error-logprobs-negative-completion", "error-generate-both"),
    }
)


def suits(shape: Shape) -> bool:
    """Whether a request that was written for vLLM says something to SGLang."""
    fields = shape.body.keys() if isinstance(shape.body, dict) else set()
    left_out = ANSWERED_OTHERWISE.keys() | BY_CHANCE.keys()
    return not VLLM_FIELDS & fields and not shape.path.startswith(VLLM_PATHS) and shape.name not in left_out and shape.profile != "score"


def left_out(shape: Shape) -> bool:
    """Generated requests that SGLang answers by chance, and those that the product refuses."""
    body = shape.body
    refused = body.get("model") == "nope" or HUGE in body.values()
    several = body.get("n") not in (None, 1) or isinstance(body.get("prompt"), list)
    texts = body.get("input")
    packed = body.get("encoding_format") == "base64" and isinstance(texts, list) and len(texts) > 1 and not isinstance(texts[0], int)
    return refused or packed or (body.get("temperature") != 0 and several)


PARSED = "its parser hands a line break on or not by which tokens fell into one delta, and SGLang joins those that wait for a slow reader"

SGLANG = Contract(
    engine="sglang",
    image=IMAGE,
    entrypoint="python3",
    start=("-m", "sglang.launch_server", "--model-path", MODEL_PATH),
    ready="/ready",
    settle=("/flush_cache",),
    added={
        "tp_size": 1,
        "pp_size": 1,
        "dtype": "float32",
        "device": "cpu",
        "attention_backend": "torch_native",
        "disable_overlap_schedule": True,
        "sleep_on_idle": True,
        "max_total_tokens": 4096,
        "max_running_requests": 8,
    },
    profiles={profile.name: profile for profile in PROFILES},
    shapes=(*(shape for shape in (*CHAT, *COMPLETIONS, *OTHER, *ERRORS, *POOLING) if suits(shape)), *SGLANG_SHAPES, *SGLANG_EMBEDDINGS),
    answered_otherwise=ANSWERED_OTHERWISE,
    unsteady=dict.fromkeys(("chat-stream-call-found",), PARSED),
    batched=BATCHED,
    accepted=ACCEPTED,
    left_out=left_out,
)
