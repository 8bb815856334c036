"""Requests to models that embed, and to models that classify, score and rank."""

from __future__ import annotations

from typing import Any

from tests.engines.shapes import MODEL, Shape, post, user

DOCUMENTS = ["Each image holds one engine.", "Type make up.", "Hello!"]


def embed(name: str, reason: str, path: str = "/v1/embeddings", **body: Any) -> Shape:
    """A request to the embedding model; a field that is None is not sent."""
    fields = {"model": MODEL, "input": "Each image holds"} | body
    return post(name, reason, path, {key: value for key, value in fields.items() if value is not None}, profile="embed")


def score(name: str, reason: str, path: str = "/score", **body: Any) -> Shape:
    """A request to the scoring model."""
    return post(name, reason, path, {"model": MODEL, **body}, profile="score")


def rank(name: str, reason: str, path: str = "/rerank", **body: Any) -> Shape:
    """A question and documents to be put in order."""
    return score(name, reason, path, **({"query": "What is in an image?", "documents": DOCUMENTS} | body))


POOLING: tuple[Shape, ...] = (
    embed("embedding", "the plain case, floats to the last bit"),
    embed("embeddings", "several texts", input=DOCUMENTS),
    embed("embedding-of-tokens", "tokens in place of text", input=[69, 70, 71]),
    embed("embeddings-of-tokens", "several lists of tokens", input=[[69, 70], [71]]),
    embed("embedding-base64", "a compact encoding", encoding_format="base64"),
    embed(
        "embedding-base64-half",
        "a compact encoding of half precision",
        encoding_format="base64",
        embed_dtype="float16",
        endianness="little",
    ),
    embed("embedding-bytes", "no JSON at all", encoding_format="bytes_only"),
    embed("embedding-dimensions", "fewer dimensions, refused unless the model can", dimensions=8),
    embed("embedding-of-a-chat", "a conversation in place of text", input=None, messages=user()),
    embed("embedding-truncated", "a text cut to a few tokens", truncate_prompt_tokens=2),
    embed("embedding-unactivated", "not normalised", use_activation=False),
    embed("embedding-user", "who asks", user="somebody", priority=0),
    embed(
        "embedding-cohere", "Cohere's form", "/v2/embed", input=None, texts=DOCUMENTS, input_type="search_query", embedding_types=["float"]
    ),
    embed("pooling", "the raw route", "/pooling"),
    embed("pooling-of-a-chat", "the raw route, a conversation", "/pooling", input=None, messages=user()),
    embed("pooling-task", "the raw route with a task", "/pooling", task="embed"),
    embed("pooling-tokens", "each token's vector", "/pooling", task="token_embed"),
    embed("embedding-score", "an embedding model scores by distance", "/score", input=None, text_1="Hello!", text_2=DOCUMENTS),
    embed("embedding-rank", "and ranks", "/v1/rerank", input=None, query="Hello!", documents=DOCUMENTS),
    embed("embedding-invocations", "SageMaker's one route", "/invocations"),
    embed("embedding-tokenize", "tokens of a model that embeds", "/tokenize", input=None, prompt="Hello"),
    embed("error-embedding-unknown-model", "404 with the name", model="nope"),
    embed("error-embedding-empty", "an empty text", input=""),
    embed("error-embedding-nothing", "no texts", input=[]),
    embed("error-embedding-missing", "a required field is missing", input=None),
    embed("error-embedding-type", "a wrong type", input={"a": 1}),
    embed("error-embedding-encoding", "an encoding that nobody knows", encoding_format="morse"),
    embed("error-embedding-too-long", "more tokens than the model reads", input="word " * 3000),
    embed("error-embedding-token", "a token that does not exist", input=[999999]),
    embed("error-embedding-task", "a task that this model does not have", "/pooling", task="classify"),
    embed("error-embedding-chat", "a model that embeds does not answer", "/v1/chat/completions", input=None, messages=user()),
    embed("error-embedding-completion", "nor complete", "/v1/completions", input=None, prompt="Hello"),
    embed("error-embedding-classify", "nor classify", "/classify"),
    Shape("embedding-models", "which models there are", "/v1/models", method="GET", profile="embed"),
    Shape("embedding-openapi", "every route and field that the engine documents", "/openapi.json", method="GET", profile="embed"),
    score("score", "one text against one", text_1="What is in an image?", text_2="One engine."),
    score("score-many", "one text against several", text_1="What is in an image?", text_2=DOCUMENTS),
    score("score-pairs", "several against several", text_1=DOCUMENTS, text_2=DOCUMENTS),
    score("score-v1", "the same below /v1", "/v1/score", text_1="a", text_2="b"),
    score("score-names", "the newer names of the fields", queries="a", documents=["b", "c"]),
    score("score-raw", "before the activation", text_1="a", text_2="b", use_activation=False),
    score("score-truncated", "texts cut to a few tokens", text_1="a b c d", text_2="b c d e", truncate_prompt_tokens=3),
    rank("rank", "documents in order"),
    rank("rank-v1", "the same below /v1", "/v1/rerank"),
    rank("rank-v2", "the same below /v2", "/v2/rerank"),
    rank("rank-top", "only the best", top_n=1),
    rank("rank-one", "a single document as text", documents="Hello!"),
    score("classify", "the label's probability", "/classify", input="Hello!"),
    score("classify-many", "several texts", "/classify", input=DOCUMENTS),
    score("classify-tokens", "tokens in place of text", "/classify", input=[69, 70]),
    score("classify-chat", "a conversation in place of text", "/classify", messages=user()),
    score("classify-raw", "before the activation", "/classify", input="Hello!", use_activation=False),
    score("pooling-of-a-classifier", "the raw route", "/pooling", input="Hello!"),
    score("error-score-pairs", "three against two", text_1=DOCUMENTS, text_2=DOCUMENTS[:2]),
    score("error-score-missing", "half of a pair", text_1="a"),
    score("error-score-nothing", "nothing to compare with", text_1="a", text_2=[]),
    rank("error-rank-nothing", "no documents", documents=[]),
    rank("error-rank-top", "fewer than none", top_n=-1),
    rank("error-rank-unknown-model", "404 with the name", model="nope"),
    score("error-classify-embedding", "a task that this model does not have", "/v1/embeddings", input="Hello"),
    score("error-classify-missing", "a required field is missing", "/classify"),
)
