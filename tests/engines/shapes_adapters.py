"""Requests to a server with a LoRA adapter, and with what is off by default turned on."""

from __future__ import annotations

from typing import Any

from tests.engines.shapes import MODEL, Shape, chat, complete, post, user
from tests.engines.shapes_chat import TEMPLATE

ADAPTER = "strange"
P = "adapters"


def sent(name: str, reason: str, path: str, body: Any) -> Shape:
    """A JSON request to this profile."""
    return post(name, reason, path, body, profile=P)


ADAPTERS: tuple[Shape, ...] = (
    Shape("adapter-models", "the adapter stands beside its parent", "/v1/models", method="GET", profile=P),
    chat("adapter-chat", "the adapter answers under its own name", profile=P, model=ADAPTER, logprobs=True, top_logprobs=2),
    chat("adapter-base", "the base model answers as without it", profile=P, logprobs=True, top_logprobs=2),
    chat("adapter-chat-again", "and after the base model as before", profile=P, model=ADAPTER, stream=True),
    complete("adapter-completion", "the adapter completes", profile=P, model=ADAPTER, logprobs=3),
    complete("adapter-stream", "the adapter in a stream", profile=P, model=ADAPTER, stream=True, stream_options={"include_usage": True}),
    complete("adapter-beam-search", "beams with an adapter", profile=P, model=ADAPTER, use_beam_search=True, n=2),
    sent(
        "adapter-response",
        "the adapter's name in /v1/responses",
        "/v1/responses",
        {"model": ADAPTER, "input": "Hello!", "temperature": 0, "max_output_tokens": 8},
    ),
    sent(
        "adapter-message",
        "the adapter's name in /v1/messages",
        "/v1/messages",
        {"model": ADAPTER, "messages": user(), "temperature": 0, "max_tokens": 8},
    ),
    sent("adapter-tokenize", "the adapter's tokens", "/tokenize", {"model": ADAPTER, "prompt": "Hello"}),
    chat("adapter-unknown", "a name that is neither", profile=P, model="stranger"),
    sent(
        "adapter-load-missing",
        "an adapter that is not on this disk",
        "/v1/load_lora_adapter",
        {"lora_name": "late", "lora_path": "/adapters/missing"},
    ),
    sent("adapter-load-known", "a name that is taken", "/v1/load_lora_adapter", {"lora_name": ADAPTER, "lora_path": "/adapters/strange"}),
    sent("adapter-load-incomplete", "half of a request", "/v1/load_lora_adapter", {"lora_name": "late"}),
    sent(
        "adapter-load",
        "an adapter is loaded while the server runs",
        "/v1/load_lora_adapter",
        {"lora_name": "late", "lora_path": "/adapters/late"},
    ),
    chat("adapter-late", "and answers", profile=P, model="late"),
    Shape("adapter-late-models", "and is listed", "/v1/models", method="GET", profile=P),
    sent("adapter-unload", "and is taken away", "/v1/unload_lora_adapter", {"lora_name": "late"}),
    chat("adapter-gone", "and does not answer any more", profile=P, model="late"),
    sent("adapter-unload-unknown", "what is not there cannot be taken away", "/v1/unload_lora_adapter", {"lora_name": "late"}),
    sent("adapter-sagemaker-load", "SageMaker's route for the same", "/adapters", {"name": "late", "src": "/adapters/late"}),
    chat("adapter-sagemaker-late", "and it answers", profile=P, model="late", max_tokens=4),
    Shape("adapter-sagemaker-unload", "SageMaker's route for the end", "/adapters/late", method="DELETE", profile=P),
    Shape(
        "adapter-invocations",
        "SageMaker names the adapter in a header",
        "/invocations",
        {"model": MODEL, "prompt": "Hello", "temperature": 0, "max_tokens": 6},
        headers=(("x-amzn-sagemaker-adapter-identifier", ADAPTER),),
        profile=P,
    ),
    Shape(
        "request-id-header",
        "the client's id comes back in header and body",
        "/v1/completions",
        {"model": MODEL, "prompt": "a", "max_tokens": 1, "temperature": 0},
        headers=(("x-request-id", "my-own"),),
        profile=P,
    ),
    chat(
        "template-trusted",
        "a template of the request's own",
        profile=P,
        chat_template=TEMPLATE,
        chat_template_kwargs={"colour": "red"},
        return_token_ids=True,
    ),
    chat("length-limit", "a limit of the server's own", profile=P, messages=user("word " * 400)),
    complete("tokens-as-ids-by-default", "a default of the server's own", profile=P, logprobs=1),
    Shape("tokenizer-info-on", "what the tokenizer is", "/tokenizer_info", method="GET", profile=P),
    sent(
        "render-chat",
        "a conversation as tokens, nothing generated",
        "/v1/chat/completions/render",
        {"model": MODEL, "messages": user(), "temperature": 0},
    ),
    sent(
        "render-completion",
        "a prompt as tokens, nothing generated",
        "/v1/completions/render",
        {"model": MODEL, "prompt": ["Hello", "Bye"], "temperature": 0},
    ),
    sent(
        "tokens-in-tokens-out",
        "tokens to tokens",
        "/inference/v1/generate",
        {"token_ids": [69, 70], "sampling_params": {"max_tokens": 4, "temperature": 0}},
    ),
)
