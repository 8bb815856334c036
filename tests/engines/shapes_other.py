"""Requests to the other routes of a model that generates: responses, messages, tokens, models and what the server says of itself."""

from __future__ import annotations

from typing import Any

from tests.engines.shapes import MODEL, QUESTION, Shape, post, user
from tests.engines.shapes_chat import CITY, FORMAT, TOOLS

RESPONSE_TOOL = {"type": "function", "name": "weather", "description": "Get the weather.", "parameters": CITY, "strict": True}
MESSAGE_TOOL = {"name": "weather", "description": "Get the weather.", "input_schema": CITY, "strict": True}


def respond(name: str, reason: str, **body: Any) -> Shape:
    """A request to /v1/responses, greedy and short."""
    return post(name, reason, "/v1/responses", {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 24} | body)


def message(name: str, reason: str, *, smoke: bool = False, path: str = "/v1/messages", **body: Any) -> Shape:
    """A request in Anthropic's form, greedy and short."""
    return post(name, reason, path, {"model": MODEL, "messages": user(), "temperature": 0, "max_tokens": 24} | body, smoke=smoke)


def get(name: str, reason: str, path: str, *, smoke: bool = False, method: str = "GET") -> Shape:
    """A request without a body."""
    return Shape(name, reason, path, method=method, smoke=smoke)


OTHER: tuple[Shape, ...] = (
    get("models", "which models there are, and their limits", "/v1/models", smoke=True),
    get("version", "the engine's version", "/version"),
    get("openapi", "every route and field that the engine documents", "/openapi.json"),
    get("docs", "the engine's documentation page", "/docs"),
    get("load", "the engine's own count of requests", "/load"),
    get("ping", "the probe of SageMaker", "/ping"),
    get("models-head", "a route that only answers GET", "/v1/models", method="HEAD"),
    get("models-slash", "a redirect keeps the client's address", "/v1/models/"),
    get("models-escaped", "an escaped path", "/v1/%6dodels"),
    get("models-query", "a query that nobody reads", "/v1/models?limit=1&after=x"),
    Shape("cors", "a browser of another origin asks", "/v1/models", method="GET", headers=(("origin", "http://elsewhere.example"),)),
    Shape(
        "cors-preflight",
        "a browser asks before it posts",
        "/v1/chat/completions",
        method="OPTIONS",
        headers=(
            ("origin", "http://elsewhere.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ),
    ),
    respond("response", "the plain case"),
    respond("response-instructions", "instructions beside the question", instructions="Be short."),
    respond(
        "response-items",
        "the question as items",
        input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
    ),
    respond(
        "response-conversation", "a conversation as items", input=[*user("Hello!"), {"role": "assistant", "content": "Hello!"}, *user()]
    ),
    respond("response-metadata", "what the client notes comes back", metadata={"a": "b"}, user="somebody"),
    respond("response-own-id", "the client's own id comes back", request_id="resp_mine"),
    respond(
        "response-schema",
        "an answer that fits a schema",
        text={"format": {"type": "json_schema", **FORMAT["json_schema"]}},
        max_output_tokens=60,
    ),  # type: ignore[dict-item]
    respond("response-tool", "a demanded call", tools=[RESPONSE_TOOL], tool_choice="required", max_output_tokens=90),
    respond("response-logprobs", "log probabilities in the output", include=["message.output_text.logprobs"], top_logprobs=2),
    respond("response-truncation", "an input cut by the server if it must be", truncation="auto"),
    respond("response-stream", "typed events, counted", stream=True),
    respond(
        "response-stream-tool",
        "a demanded call as events",
        stream=True,
        tools=[RESPONSE_TOOL],
        tool_choice="required",
        max_output_tokens=90,
    ),
    respond("response-background", "work without a waiting client needs a store", background=True),
    respond("response-after-unknown", "a predecessor that does not exist", previous_response_id="resp_unknown"),
    get("response-unknown", "an answer that does not exist", "/v1/responses/resp_unknown"),
    get("response-cancel-unknown", "the end of work that does not exist", "/v1/responses/resp_unknown/cancel", method="POST"),
    message("message", "Anthropic's form, the plain case", smoke=True),
    message("message-system", "instructions beside the conversation", system="Be short."),
    message("message-blocks", "content as blocks", messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]),
    message("message-stop", "a text that ends the answer is named", stop_sequences=["models"]),
    message("message-tool", "a demanded call", tools=[MESSAGE_TOOL], tool_choice={"type": "tool", "name": "weather"}, max_tokens=60),
    message("message-tool-any", "some demanded call", tools=[MESSAGE_TOOL], tool_choice={"type": "any"}, max_tokens=60),
    message("message-stream", "named events", stream=True),
    message(
        "message-stream-tool",
        "a demanded call as events",
        stream=True,
        tools=[MESSAGE_TOOL],
        tool_choice={"type": "tool", "name": "weather"},
        max_tokens=60,
    ),
    message("message-without-limit", "max_tokens is required here", max_tokens=None),
    message("message-unknown-model", "an error in Anthropic's form", model="nope"),
    message("message-count", "tokens counted, nothing generated", path="/v1/messages/count_tokens"),
    post("tokenize", "text to tokens", "/tokenize", {"model": MODEL, "prompt": "ray-serve-cai serves"}, smoke=True),
    post(
        "tokenize-texts",
        "text to tokens with their texts",
        "/tokenize",
        {"prompt": "Grüße 世界", "return_token_strs": True, "add_special_tokens": False},
    ),
    post("tokenize-chat", "a conversation to tokens", "/tokenize", {"model": MODEL, "messages": user(), "return_token_strs": True}),
    post(
        "tokenize-chat-tools",
        "a conversation with tools",
        "/tokenize",
        {"messages": user(), "tools": TOOLS, "add_generation_prompt": False},
    ),
    post("tokenize-neither", "neither text nor conversation", "/tokenize", {"model": MODEL}),
    post("detokenize", "tokens to text", "/detokenize", {"model": MODEL, "tokens": [69, 70, 71, 265]}),
    post("detokenize-nothing", "no tokens", "/detokenize", {"tokens": []}),
    post("detokenize-out-of-range", "a token that does not exist", "/detokenize", {"tokens": [999999]}),
    post("detokenize-negative", "a token below zero", "/detokenize", {"tokens": [-1]}),
    get("tokenizer-info", "off unless the server was started with it", "/tokenizer_info"),
    post(
        "scoring-by-generation",
        "probabilities of labels as the next token",
        "/generative_scoring",
        {"model": MODEL, "query": "Is it?", "items": ["a", "b"], "label_token_ids": [69, 70]},
    ),
    post(
        "decision",
        "a question with fixed answers",
        "/v1/systemone",
        {"model": MODEL, "state": "It rains.", "questions": {"wet": {"type": "boolean", "instructions": "Is it wet?"}}},
    ),
    post(
        "invocations-chat",
        "SageMaker's one route, a conversation",
        "/invocations",
        {"model": MODEL, "messages": user(), "temperature": 0, "max_tokens": 4},
    ),
    post(
        "invocations-completion",
        "SageMaker's one route, a text",
        "/invocations",
        {"model": MODEL, "prompt": "Hello", "temperature": 0, "max_tokens": 4},
    ),
    post("invocations-neither", "SageMaker's one route, neither", "/invocations", {"model": MODEL}),
    post("render-off", "scale-out routes say how to turn them on", "/v1/chat/completions/render", {"model": MODEL, "messages": user()}),
    post(
        "tokens-in-off",
        "scale-out routes say how to turn them on",
        "/inference/v1/generate",
        {"token_ids": [69], "sampling_params": {"max_tokens": 1}},
    ),
    post("cohere", "Cohere's form, which needs a package", "/cohere/v2/chat", {"model": MODEL, "messages": user()}),
    post("elastic", "elastic expert parallelism of one rank", "/is_scaling_elastic_ep", {}),
    post("lora-load-off", "adapters at run time are off", "/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/a"}),
    post("embeddings-of-a-generator", "a task that this model does not have", "/v1/embeddings", {"model": MODEL, "input": "Hello"}),
    post("score-of-a-generator", "a task that this model does not have", "/score", {"model": MODEL, "text_1": "a", "text_2": "b"}),
    post("audio-json", "a route of models that hear", "/v1/audio/transcriptions", {"model": MODEL}),
    Shape(
        "audio-form",
        "a form with a file for a model that does not hear",
        "/v1/audio/translations",
        raw=b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n',
        headers=(("content-type", "multipart/form-data; boundary=x"),),
    ),
)
