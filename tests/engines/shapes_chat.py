"""Requests to /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from tests.engines.shapes import QUESTION, Shape, chat, user

USAGE = {"include_usage": True}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "size": {"enum": ["small", "large"]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
CITY = {"type": "object", "properties": {"city": {"enum": ["Bonn", "Rome"]}}, "required": ["city"], "additionalProperties": False}


def tool(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """A function that the model may call."""
    return {
        "type": "function",
        "function": {"name": name, "description": f"Get the {name}.", "parameters": parameters or CITY, "strict": True},
    }


TOOLS = [tool("weather"), tool("time")]
NAMED = {"type": "function", "function": {"name": "weather"}}
CALL = '<tool_call>\\n\\{"name": "weather", "arguments": \\{"city": "(Bonn|Rome)"\\}\\}\\n</tool_call>'
"""What a model that knows the parser's format would write; the demo model does not, so a pattern makes it."""
THOUGHT = "Here is my thought process:[a-z ]{4,12}Here is my response:[a-z ]{4,12}"
CALLED: list[dict[str, Any]] = [
    *user("What is the weather?"),
    {
        "role": "assistant",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]
TEMPLATE = "{% for m in messages %}<|user|>{{ m.content }} {{ colour | default('blue') }}<|end|>{% endfor %}<|assistant|>"

CHAT: tuple[Shape, ...] = (
    chat("chat", "the plain case, to its natural end", max_tokens=None, smoke=True),
    chat("chat-of-two-turns", "a conversation", messages=[*user("Hello!"), {"role": "assistant", "content": "Hello!"}, *user()]),
    chat("chat-system", "instructions before the question", messages=[{"role": "system", "content": "Be short."}, *user()]),
    chat("chat-developer", "the newer name of the same role", messages=[{"role": "developer", "content": "Be short."}, *user()]),
    chat(
        "chat-content-parts",
        "content as a list of parts",
        messages=[{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "ray-serve-cai?"}]}],
    ),
    chat("chat-named-author", "a name on a message", messages=[{"role": "user", "name": "Ann", "content": QUESTION}]),
    chat("chat-no-model", "without a model vLLM takes the served one", model=None),
    chat("chat-max-completion-tokens", "the newer name of the limit", max_tokens=None, max_completion_tokens=5),
    chat("chat-logprobs", "log probabilities with bytes and alternatives", logprobs=True, top_logprobs=3),
    chat("chat-logprobs-alone", "log probabilities of the chosen tokens", logprobs=True),
    chat("chat-prompt-logprobs", "log probabilities of the prompt", prompt_logprobs=0),
    chat("chat-n", "several answers from one seed", n=2, temperature=1.0, seed=5),
    chat("chat-seed", "sampling that a seed makes repeatable", temperature=1.3, seed=99, top_p=0.9),
    chat("chat-stop", "a text that ends the answer", stop=["models"]),
    chat("chat-penalties", "penalties", presence_penalty=2, frequency_penalty=2, max_tokens=40),
    chat("chat-logit-bias", "one token forced", logit_bias={"70": 100}, max_tokens=4),
    chat("chat-beam-search", "beams instead of sampling", use_beam_search=True, n=2, max_tokens=8),
    chat("chat-token-ids", "tokens of prompt and answer beside the text", return_token_ids=True),
    chat("chat-prompt-text", "the prompt that the template made", return_prompt_text=True),
    chat("chat-template", "a template of the request's own is refused unless the server trusts it", chat_template=TEMPLATE),
    chat("chat-template-kwargs", "variables for the template", chat_template_kwargs={"colour": "red"}),
    chat("chat-no-generation-prompt", "no start of an answer in the prompt", add_generation_prompt=False),
    chat(
        "chat-continue",
        "the answer goes on with the last message",
        messages=[*user(), {"role": "assistant", "content": "ray-serve-cai serves"}],
        add_generation_prompt=False,
        continue_final_message=True,
    ),
    chat(
        "chat-continue-echo",
        "and repeats it",
        messages=[*user(), {"role": "assistant", "content": "ray-serve-cai serves"}],
        add_generation_prompt=False,
        continue_final_message=True,
        echo=True,
    ),
    chat("chat-documents", "documents for a template that does not know them", documents=[{"title": "a", "text": "b"}]),
    chat("chat-reasoning-effort", "accepted by every model", reasoning_effort="low"),
    chat("chat-priority", "refused, or not, as the engine's scheduler says", priority=1),
    chat("chat-json-schema", "an answer that fits a schema", response_format=FORMAT, max_tokens=60, smoke=True),
    chat("chat-json-object", "an answer that is JSON", response_format={"type": "json_object"}, max_tokens=40),
    chat("chat-regex", "an answer that fits a pattern", structured_outputs={"regex": "(yes|no), [0-9]{3}"}),
    chat("chat-choice", "one of several answers", structured_outputs={"choice": ["red", "green"]}),
    chat("chat-grammar", "an answer that fits a grammar", structured_outputs={"grammar": 'root ::= "a" [0-9] "z"'}),
    chat("chat-structured-json", "a schema in vLLM's own field", structured_outputs={"json": SCHEMA}, max_tokens=60),
    chat(
        "chat-structural-tag",
        "structure between tags only",
        response_format={"type": "structural_tag", "format": {"type": "const_string", "value": "fixed"}},
    ),
    chat("chat-tool-named", "one tool demanded by name", tools=TOOLS, tool_choice=NAMED, max_tokens=60, smoke=True),
    chat("chat-tool-required", "some tool demanded", tools=TOOLS, tool_choice="required", max_tokens=90),
    chat(
        "chat-tool-required-single", "no more than one call", tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=90
    ),
    chat(
        "chat-tool-auto",
        "the parser finds the call in the text",
        tools=TOOLS,
        tool_choice="auto",
        structured_outputs={"regex": CALL},
        max_tokens=90,
    ),
    chat(
        "chat-tool-auto-two",
        "two calls in one answer",
        tools=TOOLS,
        tool_choice="auto",
        structured_outputs={"regex": f"{CALL}\\n{CALL}"},
        max_tokens=150,
    ),
    chat("chat-tool-auto-text", "tools at hand, and plain text as the answer", tools=TOOLS, tool_choice="auto"),
    chat("chat-tool-default", "tools without a choice are offered", tools=TOOLS),
    chat("chat-tool-none", "tools that must not be called", tools=TOOLS, tool_choice="none"),
    chat("chat-tool-result", "a call and its result in the conversation", messages=CALLED, tools=TOOLS),
    chat("chat-reasoning", "the parser separates the thought from the answer", structured_outputs={"regex": THOUGHT}, max_tokens=90),
    chat(
        "chat-reasoning-left-out",
        "the thought is not wanted",
        structured_outputs={"regex": THOUGHT},
        include_reasoning=False,
        max_tokens=90,
    ),
    chat("chat-own-id", "the client's own id comes back in the answer's id", request_id="my-own-chat", max_tokens=2),
    chat("chat-unknown-field", "a field that nobody knows is ignored, as in vLLM", nonsense=True, max_tokens=2),
    chat(
        "chat-metadata",
        "OpenAI fields that vLLM has no use for",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        user="somebody",
        max_tokens=2,
    ),
    chat("chat-empty-content", "a message without text", messages=user("")),
    chat("chat-null-content", "a message whose content is null", messages=[{"role": "assistant", "content": None}, *user()]),
    chat("chat-stream", "role, text and end in a stream", stream=True, max_tokens=None, smoke=True),
    chat("chat-stream-usage", "the last chunk counts the tokens", stream=True, stream_options=USAGE),
    chat("chat-stream-usage-always", "each chunk counts", stream=True, stream_options=USAGE | {"continuous_usage_stats": True}),
    chat("chat-stream-logprobs", "log probabilities in a stream", stream=True, logprobs=True, top_logprobs=2, smoke=True),
    chat("chat-stream-n", "answers interleaved in one stream", stream=True, n=3, temperature=1.0, seed=6, stream_options=USAGE),
    chat("chat-stream-stop", "an end that the stream must hold back text for", stream=True, stop=" large language"),
    chat("chat-stream-token-ids", "tokens beside the text in a stream", stream=True, return_token_ids=True),
    chat(
        "chat-stream-echo",
        "the continued message comes first",
        messages=[*user(), {"role": "assistant", "content": "ray"}],
        add_generation_prompt=False,
        continue_final_message=True,
        echo=True,
        stream=True,
    ),
    chat("chat-stream-json-schema", "a schema in a stream", stream=True, response_format=FORMAT, max_tokens=60),
    chat("chat-stream-tool-named", "a demanded call in pieces", stream=True, tools=TOOLS, tool_choice=NAMED, max_tokens=60),
    chat("chat-stream-tool-required", "some demanded call in pieces", stream=True, tools=TOOLS, tool_choice="required", max_tokens=90),
    chat(
        "chat-stream-tool-auto",
        "a call that the parser finds, in pieces",
        stream=True,
        tools=TOOLS,
        tool_choice="auto",
        structured_outputs={"regex": CALL},
        max_tokens=90,
        smoke=True,
    ),
    chat(
        "chat-stream-tool-auto-two",
        "two calls in one stream",
        stream=True,
        tools=TOOLS,
        tool_choice="auto",
        structured_outputs={"regex": f"{CALL}\\n{CALL}"},
        max_tokens=150,
    ),
    chat("chat-stream-reasoning", "thought before answer in a stream", stream=True, structured_outputs={"regex": THOUGHT}, max_tokens=90),
    chat(
        "chat-batch",
        "several conversations in one request",
        path="/v1/chat/completions/batch",
        messages=[user("Hello!"), user("Who are you?")],
    ),
)
