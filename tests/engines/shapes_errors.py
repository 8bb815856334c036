"""Requests that must fail, and fail alike: same status, same message, same field named.

A few are bad and yet accepted by vLLM; those do not have ``error`` in their name.
"""

from __future__ import annotations

from tests.engines.shapes import Shape, chat, complete, user
from tests.engines.shapes_chat import NAMED, TOOLS, tool

JSON = (("content-type", "application/json"),)
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def bad(name: str, reason: str, schema: object) -> Shape:
    """A chat whose response_format cannot be kept."""
    return chat(name, reason, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


ERRORS: tuple[Shape, ...] = (
    chat("error-unknown-model", "404 with the name", model="nope", smoke=True),
    complete("error-unknown-model-completion", "404 with the name", model="nope"),
    complete("error-unknown-lora", "an adapter that is not there is a model that is not there", model="strange"),
    Shape("error-malformed-json", "a body that is not JSON", CHAT, raw=b"{bad", headers=JSON, smoke=True),
    Shape("error-empty-body", "no body at all", CHAT, raw=b"", headers=JSON),
    Shape("error-body-is-a-list", "JSON that is no object", CHAT, raw=b"[1, 2]", headers=JSON),
    Shape("error-body-is-null", "JSON that is null", COMPLETIONS, raw=b"null", headers=JSON),
    Shape("error-bytes", "bytes that are not UTF-8", COMPLETIONS, raw=b'{"prompt": "\xff\xfe"}', headers=JSON),
    Shape("error-surrogate", "half of a character", COMPLETIONS, raw=b'{"model": "demo", "prompt": "\\ud83d", "max_tokens": 1, "temperature": 0}', headers=JSON),
    Shape("error-nan", "a number that JSON does not have", COMPLETIONS, raw=b'{"model": "demo", "prompt": "a", "temperature": NaN}', headers=JSON),
    Shape("error-huge-number", "a number that no float holds", COMPLETIONS, raw=b'{"model": "demo", "prompt": "a", "temperature": 1e999}', headers=JSON),
    Shape("error-content-type", "a body of another type", CHAT, raw=b"model=demo", headers=(("content-type", "text/plain"),)),
    Shape("error-no-content-type", "a body of no type", CHAT, raw=b'{"model": "demo", "messages": []}'),
    Shape("content-type-with-charset", "the type with a parameter is fine", COMPLETIONS, raw=b'{"model": "demo", "prompt": "Hello", "max_tokens": 2, "temperature": 0}', headers=(("content-type", "application/json; charset=utf-8"),)),
    Shape("error-unknown-route", "404 of the engine's own", "/v1/nope", method="GET"),
    Shape("error-unknown-route-post", "404 for a POST", "/v1/nope", {"model": "demo"}),
    Shape("error-wrong-method", "405 and what is allowed", CHAT, method="GET"),
    Shape("error-delete", "405 for another method", "/v1/models", method="DELETE"),
    chat("error-no-messages", "a conversation without messages", messages=[]),
    chat("error-messages-missing", "a required field is missing", messages=None),
    chat("error-messages-a-text", "a wrong type", messages="Hello"),
    chat("error-message-without-role", "a message without a role", messages=[{"content": "Hello"}]),
    chat("role-unknown", "a role that nobody knows is the template's to refuse", messages=[{"role": "wizard", "content": "Hello"}]),
    chat("error-unknown-part", "a part of content that nobody knows", messages=[{"role": "user", "content": [{"type": "smell", "smell": "rose"}]}]),
    chat("error-image", "an image for a model that does not see", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]),
    chat("tool-result-alone", "a tool's result without an id passes", messages=[{"role": "tool", "content": "rain"}]),
    chat("error-too-long", "more tokens than the model reads", messages=user("word " * 3000)),
    chat("limit-beyond-the-context", "prompt and limit together are too long: the limit is cut", max_tokens=2047),
    chat("error-limit-too-large", "a limit that the model does not have", max_tokens=100000),
    chat("error-limit-negative", "a limit below zero", max_tokens=-1),
    chat("error-limit-zero", "nothing to generate", max_tokens=0),
    chat("error-limit-a-text", "a number as a word", max_tokens="many"),
    chat("error-temperature-high", "out of range, or not, as vLLM says", temperature=2.5, seed=1),
    chat("error-temperature-negative", "out of range", temperature=-0.1),
    chat("error-temperature-a-text", "a wrong type", temperature="warm"),
    chat("error-top-p", "out of range", top_p=1.5),
    chat("error-top-p-zero", "the open end of a range", top_p=0),
    chat("error-top-k", "below -1", top_k=-5),
    chat("error-min-p", "out of range", min_p=2),
    chat("error-presence-penalty", "out of range", presence_penalty=3),
    chat("error-repetition-penalty", "zero would divide", repetition_penalty=0),
    chat("error-n-zero", "no answer asked for", n=0),
    chat("error-n-greedy", "more than one greedy answer", n=3),
    chat("error-n-huge", "more answers than the server gives", n=100000),
    chat("error-seed", "a seed outside of 64 bits", seed=2**64),
    chat("error-logprobs-huge", "more alternatives than allowed", logprobs=True, top_logprobs=1000),
    chat("error-logprobs-negative", "fewer than none", logprobs=True, top_logprobs=-2),
    chat("error-top-logprobs-alone", "alternatives without log probabilities", top_logprobs=2),
    chat("error-prompt-logprobs-stream", "log probabilities of the prompt do not stream", prompt_logprobs=1, stream=True),
    chat("error-stream-options-alone", "options of a stream that is none", stream_options={"include_usage": True}),
    chat("error-stream-a-text", "a word where true or false belongs", stream="perhaps"),
    chat("error-stream-unknown-model", "an error before the first event is no stream", stream=True, model="nope"),
    chat("error-stream-too-long", "the same for a prompt that is too long", stream=True, messages=user("word " * 3000)),
    chat("error-logit-bias", "a bias for a token that does not exist", logit_bias={"99999": 1}),
    chat("error-logit-bias-a-word", "a bias for no token at all", logit_bias={"word": 1}),
    chat("error-allowed-tokens", "nothing allowed", allowed_token_ids=[]),
    chat("error-min-tokens", "a minimum above the maximum", min_tokens=20, max_tokens=4),
    chat("error-stop-empty", "an end that is no text", stop=""),
    chat("error-format", "a format that nobody knows", response_format={"type": "yaml"}),
    chat("error-format-without-schema", "a schema that is missing", response_format={"type": "json_schema"}),
    bad("error-schema-type", "a type that JSON does not have", {"type": "colour"}),
    bad("error-schema-reference", "a reference to nothing", {"$ref": "#/$defs/nothing"}),
    bad("error-schema-never", "a schema that nothing fits", {"type": "string", "enum": []}),
    chat("error-regex", "a pattern that is none", structured_outputs={"regex": "(["}),
    chat("error-grammar", "a grammar that is none", structured_outputs={"grammar": "root ::= ("}),
    chat("error-two-structures", "two structures at once", structured_outputs={"regex": "a", "choice": ["b"]}),
    chat("error-choice-empty", "a choice of nothing", structured_outputs={"choice": []}),
    chat("error-tool-unknown", "a demanded tool that was not given", tools=TOOLS, tool_choice={"type": "function", "function": {"name": "nope"}}),
    chat("error-tool-choice-alone", "a demanded tool without tools", tool_choice=NAMED),
    chat("error-tool-required-alone", "some tool demanded without tools", tool_choice="required"),
    chat("error-tools-empty", "a list of no tools", tools=[], tool_choice="required"),
    chat("error-tool-choice", "a choice that nobody knows", tools=TOOLS, tool_choice="sometimes"),
    chat("error-tool-without-name", "a tool without a name", tools=[{"type": "function", "function": {}}]),
    chat("error-tool-schema", "a tool whose schema is none", tools=[tool("weather", {"type": "colour"})], tool_choice="required"),
    chat("error-continue", "two ways to end the prompt at once", continue_final_message=True),
    chat("error-template", "a template with an error in it", chat_template="{% for %}"),
    chat("error-priority", "a priority outside of 64 bits", priority=2**70),
    chat("error-cache-salt", "a salt that is no text", cache_salt=5),
    complete("error-prompt-missing", "no prompt", prompt=None),
    complete("error-prompt-empty", "an empty prompt", prompt=""),
    complete("error-prompts-empty", "no prompts", prompt=[]),
    complete("error-prompt-tokens", "a token that does not exist", prompt=[69, 999999]),
    complete("error-prompt-negative", "a token below zero", prompt=[-1]),
    complete("error-prompt-mixed", "texts and tokens together", prompt=["a", 1]),
    complete("error-suffix", "filling in is not there", suffix="end"),
    complete("best-of", "a field that vLLM dropped is ignored like any unknown one", best_of=3),
    complete("error-logprobs", "more alternatives than allowed", logprobs=50),
    complete("error-logprobs-negative-completion", "fewer than none", logprobs=-2),
    complete("error-prompt-embeds", "embeddings as a prompt are off", prompt=None, prompt_embeds="AAAA"),
    complete("error-beam-stream", "beams do not stream", use_beam_search=True, stream=True),
    complete("error-truncate", "a cut to more than the model reads", truncate_prompt_tokens=100000),
    complete("error-xargs", "extra arguments of a wrong type", vllm_xargs="x"),
)
