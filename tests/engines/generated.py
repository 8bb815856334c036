"""Requests that nobody thought of: random combinations of fields, valid and not.

Each one fixes the sampling, by temperature 0 or by a seed: without either, the servers' own random states would be compared.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.engines.shapes import MODEL, Shape
from tests.engines.shapes_chat import SCHEMA, TOOLS

TEXT = st.text(max_size=30) | st.sampled_from(["Hello!", "Who are you?", "What is ray-serve-cai?"])
HUGE = 10**12
WRONG: st.SearchStrategy[Any] = st.sampled_from([None, "", "x", -1, 1.5, True, [], {}, [None], HUGE])
"""Values of some wrong type or range, for any field."""


def tenths(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers with one digit after the point, as people write them."""
    return st.integers(round(low * 10), round(high * 10)).map(lambda number: number / 10)


TOKEN = st.integers(0, 767)
TOKENS = st.lists(TOKEN, min_size=1, max_size=6)
WORDS = st.lists(TEXT.filter(bool), min_size=1, max_size=3)


def some(fields: dict[str, st.SearchStrategy[Any]], *, most: int = 5) -> st.SearchStrategy[dict[str, Any]]:
    """A few of these fields with values that each is fine alone; in one of three cases one more has a wrong value."""
    chosen = st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )
    wrong = st.dictionaries(st.sampled_from(sorted(fields)), WRONG, min_size=1, max_size=1)
    return st.builds(lambda right, spoiled: right | spoiled, chosen, st.just({}) | st.just({}) | wrong)


MODELS = st.sampled_from([MODEL, MODEL, MODEL, "nope"])
FIXED: st.SearchStrategy[dict[str, Any]] = st.just({"temperature": 0}) | st.fixed_dictionaries(
    {"temperature": tenths(0, 2), "seed": st.integers(0, 2**63 - 1)}
)
LIMIT = st.fixed_dictionaries({"max_tokens": st.integers(1, 8)})
SAMPLING: dict[str, st.SearchStrategy[Any]] = {
    "top_p": tenths(0.1, 1),
    "top_k": st.integers(0, 900),
    "min_p": tenths(0, 1),
    "presence_penalty": tenths(-2, 2),
    "frequency_penalty": tenths(-2, 2),
    "repetition_penalty": tenths(0.1, 2),
    "n": st.integers(1, 3),
    "stop": TEXT.filter(bool) | WORDS,
    "stop_token_ids": TOKENS,
    "min_tokens": st.integers(0, 2),
    "ignore_eos": st.booleans(),
    "include_stop_str_in_output": st.booleans(),
    "skip_special_tokens": st.booleans(),
    "logit_bias": st.dictionaries(TOKEN.map(str), tenths(-100, 100), max_size=3),
    "allowed_token_ids": TOKENS,
    "bad_words": WORDS,
    "prompt_logprobs": st.integers(0, 3),
    "truncate_prompt_tokens": st.integers(1, 20),
    "return_token_ids": st.booleans(),
    "priority": st.integers(-1, 1),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans(), "continuous_usage_stats": st.booleans()}),
    "model": MODELS,
    "user": TEXT,
    "surplus": st.integers(),
}
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "user", "assistant", "system", "developer", "tool", "wizard"])},
    optional={
        "content": TEXT
        | st.none()
        | st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "text", "text", "smell"]), "text": TEXT}), max_size=2),
        "name": TEXT,
    },
)
CHAT = SAMPLING | {
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 4),
    "tools": st.just(TOOLS),
    "tool_choice": st.sampled_from(["none", "auto"]),
    "response_format": st.sampled_from(
        [{"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}]
    ),
    "add_generation_prompt": st.booleans(),
    "continue_final_message": st.booleans(),
    "echo": st.booleans(),
    "include_reasoning": st.booleans(),
}
COMPLETION = SAMPLING | {
    "logprobs": st.integers(0, 4),
    "echo": st.booleans(),
    "suffix": TEXT,
    "add_special_tokens": st.booleans(),
    "structured_outputs": st.sampled_from([{"regex": "[ab]{1,4}"}, {"choice": ["yes", "no"]}, {"regex": "("}, {}]),
}


def request(path: str, *parts: st.SearchStrategy[dict[str, Any]], profile: str = "generate") -> st.SearchStrategy[Shape]:
    """A shape whose body is all parts together; the last ones win."""

    def build(*given: dict[str, Any]) -> Shape:
        return Shape(
            "generated", "nobody thought of it", path, {key: value for part in given for key, value in part.items()}, profile=profile
        )

    return st.builds(build, *parts)


CHATS = request(
    "/v1/chat/completions",
    st.fixed_dictionaries({"model": st.just(MODEL), "messages": st.lists(MESSAGE, min_size=1, max_size=3)}),
    some(CHAT),
    FIXED,
    LIMIT,
)
COMPLETIONS = request(
    "/v1/completions",
    st.fixed_dictionaries({"model": st.just(MODEL), "prompt": TEXT | TOKENS | WORDS}),
    some(COMPLETION),
    FIXED,
    LIMIT,
)
TOKENIZE = request(
    "/tokenize",
    some(
        {
            "model": MODELS,
            "prompt": TEXT,
            "messages": st.lists(MESSAGE, max_size=2),
            "add_special_tokens": st.booleans(),
            "return_token_strs": st.booleans(),
            "add_generation_prompt": st.booleans(),
        }
    ),
) | request("/detokenize", some({"model": st.just(MODEL), "tokens": TOKENS}))
EMBEDDINGS = request(
    "/v1/embeddings",
    st.fixed_dictionaries({"input": TEXT | WORDS | TOKENS | st.lists(TOKENS, min_size=1, max_size=2)})
    | st.fixed_dictionaries({"messages": st.lists(MESSAGE, min_size=1, max_size=2)}),
    some(
        {
            "model": MODELS,
            "encoding_format": st.sampled_from(["float", "base64", "bytes", "morse"]),
            "embed_dtype": st.sampled_from(["float32", "float16", "bfloat16"]),
            "endianness": st.sampled_from(["native", "big", "little"]),
            "dimensions": st.integers(1, 130),
            "use_activation": st.booleans(),
            "truncate_prompt_tokens": st.integers(1, 20),
            "add_special_tokens": st.booleans(),
            "user": TEXT,
        },
        most=3,
    ),
    profile="embed",
)
