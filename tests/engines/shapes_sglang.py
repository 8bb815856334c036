"""Requests in SGLang's own words: its native routes, and its fields beside OpenAI's."""

from __future__ import annotations

import json
from typing import Any

from tests.engines.shapes import MODEL, Shape, chat, complete, post, user
from tests.engines.shapes_chat import CALL, SCHEMA, TOOLS

THOUGHT = "<think>[a-z ]{4,12}</think>[a-z ]{4,12}"


def native(
    name: str, reason: str, path: str = "/generate", *, smoke: bool = False, sampling: dict[str, Any] | None = None, **body: Any
) -> Shape:
    """A request to the engine itself, greedy and short; a field that is None is not sent."""
    fields = {"text": "Each image holds", "sampling_params": {"temperature": 0, "max_new_tokens": 8} | (sampling or {})} | body
    return post(name, reason, path, {key: value for key, value in fields.items() if value is not None}, smoke=smoke)


def get(name: str, reason: str, path: str, *, method: str = "GET") -> Shape:
    """A request without a body."""
    return Shape(name, reason, path, method=method)


SGLANG_SHAPES: tuple[Shape, ...] = (
    chat("chat-pattern", "an answer that fits a pattern", regex="(yes|no), [0-9]{3}"),
    chat("chat-ebnf", "an answer that fits a grammar", ebnf='root ::= "a" [0-9] "z"'),
    chat("chat-call-found", "the parser finds the call in the text", tools=TOOLS, tool_choice="auto", regex=CALL, max_tokens=90),
    chat(
        "chat-stream-call-found",
        "and finds it in pieces",
        stream=True,
        tools=TOOLS,
        tool_choice="auto",
        regex=CALL,
        max_tokens=90,
        smoke=True,
    ),
    chat("chat-calls-found", "two calls in one answer", tools=TOOLS, tool_choice="auto", regex=f"{CALL}\\n{CALL}", max_tokens=150),
    chat("chat-thought", "the parser separates the thought from the answer", regex=THOUGHT, max_tokens=90),
    chat("chat-stream-thought", "thought before answer in a stream", stream=True, regex=THOUGHT, max_tokens=90, smoke=True),
    chat("chat-stream-thought-whole", "the thought in one piece", stream=True, stream_reasoning=False, regex=THOUGHT, max_tokens=90),
    chat("chat-thought-kept", "the thought is not separated", separate_reasoning=False, regex=THOUGHT, max_tokens=90),
    chat("chat-meta-info", "what the engine knows about the request", return_meta_info=True, max_tokens=4),
    chat("chat-prompt-token-ids", "the prompt's tokens", return_prompt_token_ids=True),
    chat(
        "chat-hidden-states-off", "hidden states are off unless the server was started with them", return_hidden_states=True, max_tokens=2
    ),
    chat("chat-own-rid", "the client's own id comes back", rid="my-own-chat", max_tokens=2),
    chat("chat-stop-pattern", "a pattern that ends the answer", stop_regex="con[a-z]+"),
    chat("chat-stop-kept", "the text that ends the answer is kept", stop="models", no_stop_trim=True),
    chat("chat-lora-path-unknown", "an adapter where there are none", lora_path="strange"),
    complete("completion-pattern", "an answer that fits a pattern", regex="[a-f]{4}-[0-9]{2}", max_tokens=20),
    complete("completion-json-schema-text", "a schema as text", json_schema=json.dumps(SCHEMA), max_tokens=60),
    complete("completion-ebnf", "an answer that fits a grammar", ebnf='root ::= "a" [0-9] "z"'),
    complete("completion-own-rid", "the client's own id comes back", rid="my-own-completion"),
    complete("completion-batch-logprobs", "log probabilities of several prompts", prompt=["Hello", "Type make"], logprobs=3, echo=True),
    complete("error-pattern", "a pattern that is none", regex="("),
    complete("error-two-grammars", "two structures at once", regex="a", ebnf='root ::= "a"'),
    chat(
        "error-tool-parser-schema",
        "a tool whose schema is none",
        tools=[{"type": "function", "function": {"name": "a", "parameters": {"type": "thing"}}}],
        tool_choice="required",
    ),
    native("generate", "the native route", smoke=True),
    native("generate-tokens", "tokens in place of text", text=None, input_ids=[69, 70, 71]),
    native("generate-texts", "several texts", text=["Hello", "Each image holds"]),
    native(
        "generate-each",
        "several texts, each with its own sampling",
        text=["Hello", "Type"],
        sampling_params=[{"temperature": 0, "max_new_tokens": 3}, {"temperature": 0, "max_new_tokens": 5}],
    ),
    native("generate-stream", "a stream, whose chunks hold the whole text so far", stream=True),
    native(
        "generate-logprobs",
        "log probabilities of prompt and answer",
        return_logprob=True,
        logprob_start_len=0,
        top_logprobs_num=2,
        return_text_in_logprobs=True,
    ),
    native("generate-logprobs-of-tokens", "log probabilities of chosen tokens", return_logprob=True, token_ids_logprob=[69, 70]),
    native("generate-n", "several answers", sampling={"n": 2}),
    native("generate-stop", "a text that ends the answer", sampling={"stop": [" engine"], "max_new_tokens": 30}),
    native("generate-pattern", "an answer that fits a pattern", sampling={"regex": "[ab]{3}"}),
    native("generate-own-rid", "the client's own id comes back", rid="my-own"),
    native("error-generate-nothing", "neither text nor tokens", text=None),
    native("error-generate-both", "text and tokens", input_ids=[69]),
    native("error-generate-too-long", "more than the model reads", text="word " * 3000),
    native("error-generate-sampling", "sampling that cannot be", sampling={"top_p": 2}),
    native("error-generate-field", "a sampling parameter that nobody knows", sampling={"nonsense": 1}),
    native(
        "generate-vertex",
        "Vertex AI's route",
        "/vertex_generate",
        text=None,
        sampling_params=None,
        instances=[{"text": "Hello"}],
        parameters={"sampling_params": {"temperature": 0, "max_new_tokens": 3}},
    ),
    post("encode-of-a-generator", "a task that this model does not have", "/encode", {"text": "Hello"}),
    post("classify-of-a-generator", "a task that this model does not have", "/classify", {"text": "Hello"}),
    post("v1-classify-of-a-generator", "a task that this model does not have", "/v1/classify", {"model": MODEL, "input": "Hello"}),
    post(
        "v1-score",
        "probabilities of labels as the next token",
        "/v1/score",
        {"model": MODEL, "query": "Is it?", "items": ["a", "b"], "label_token_ids": [69, 70], "apply_softmax": True},
    ),
    post("v1-score-nothing", "no labels", "/v1/score", {"model": MODEL, "query": "Is it?", "items": ["a"]}),
    post("v1-rerank", "a model that does not rank", "/v1/rerank", {"query": "Is it?", "documents": ["a", "b"]}),
    post(
        "v1-decisions",
        "a question with fixed answers",
        "/v1/decisions",
        {"model": MODEL, "input": "It rains.", "questions": [{"id": "wet", "type": "boolean", "question": "Is it wet?"}]},
    ),
    post("v1-tokenize", "text to tokens", "/v1/tokenize", {"model": MODEL, "prompt": ["Hello", "Grüße"]}),
    post("v1-detokenize", "tokens to text", "/v1/detokenize", {"model": MODEL, "tokens": [[69, 70], [71]]}),
    post(
        "ollama-chat",
        "Ollama's form",
        "/api/chat",
        {"model": MODEL, "messages": user(), "stream": False, "options": {"temperature": 0, "num_predict": 8}},
    ),
    post(
        "ollama-chat-stream",
        "Ollama streams unless told otherwise",
        "/api/chat",
        {"model": MODEL, "messages": user(), "options": {"temperature": 0, "num_predict": 4}},
    ),
    post(
        "ollama-generate",
        "Ollama's form of a text",
        "/api/generate",
        {"model": MODEL, "prompt": "Hello", "stream": False, "options": {"temperature": 0, "num_predict": 8}},
    ),
    post("ollama-show", "what Ollama tells about a model", "/api/show", {"model": MODEL}),
    get("ollama-tags", "which models there are, in Ollama's form", "/api/tags"),
    post(
        "parse-function-call",
        "calls in a text",
        "/parse_function_call",
        {
            "text": '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>',
            "tool_call_parser": "hermes",
            "tools": TOOLS,
        },
    ),
    post(
        "separate-reasoning",
        "the thought in a text",
        "/separate_reasoning",
        {"text": "<think>so</think>yes", "reasoning_parser": "deepseek-v3"},
    ),
    get("model-info", "what the engine tells about its model", "/model_info"),
    get("model-info-old", "the older name", "/get_model_info"),
    get("model-card", "one model", f"/v1/models/{MODEL}"),
    get("model-card-unknown", "a model that does not exist", "/v1/models/nope"),
    get("health-generate", "a probe that generates", "/health_generate"),
    get("flush-cache", "the cache is emptied", "/flush_cache", method="POST"),
    get("hicache-off", "a cache that is off", "/hicache/storage-backend"),
    post("lora-load", "adapters are off", "/load_lora_adapter", {"lora_name": "a", "lora_path": "/a"}),
    post("abort", "the end of a request that does not exist", "/abort_request", {"rid": "nobody"}),
    post("session", "a conversation that the server remembers", "/open_session", {"capacity_of_str_len": 100, "session_id": "mine"}),
)


def embed(name: str, reason: str, path: str = "/v1/embeddings", **body: Any) -> Shape:
    """A request to the embedding model."""
    return post(name, reason, path, body, profile="embed")


SGLANG_EMBEDDINGS: tuple[Shape, ...] = (
    embed("encode", "the native route", "/encode", text="Each image holds"),
    embed("encode-tokens", "tokens in place of text", "/encode", input_ids=[69, 70]),
    embed("encode-texts", "several texts", "/encode", text=["Hello", "Type make"]),
    embed("error-encode-nothing", "neither text nor tokens", "/encode"),
    embed("v1-classify", "a model that embeds does not classify", "/v1/classify", model=MODEL, input="Hello"),
)
