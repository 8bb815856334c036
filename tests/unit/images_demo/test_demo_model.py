"""The committed demo model, as far as it can be checked without torch: its shape, its size, its tokenizer.

That it answers word for word is asserted by `images/demo/train.py --check` and by every engine's own tests.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

DEMO = Path(__file__).parents[3] / "images" / "demo"
MODEL = DEMO / "model"


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    loaded: list[dict[str, str]] = yaml.safe_load((DEMO / "questions.yaml").read_text(encoding="utf-8"))
    return loaded


def read_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MODEL / name).read_text(encoding="utf-8"))
    return content


def test_about_thirty_questions_each_asked_once(pairs: list[dict[str, str]]) -> None:
    assert 28 <= len(pairs) <= 40
    assert all(set(pair) == {"question", "answer"} for pair in pairs)
    for key in ("question", "answer"):
        texts = [pair[key] for pair in pairs]
        assert len(set(texts)) == len(texts)
        assert all(text and text == text.strip() for text in texts)  # the chat template trims


def test_some_answers_need_several_bytes_a_character(pairs: list[dict[str, str]]) -> None:
    widths = {len(char.encode()) for pair in pairs for char in pair["answer"]}
    assert widths == {1, 2, 3, 4}


def test_directory_holds_what_an_engine_reads_and_no_more() -> None:
    files = {path.name: path for path in MODEL.iterdir()}
    assert set(files) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in files.values()) <= 5_000_000


def test_shape_allows_two_ranks_of_either_kind() -> None:
    config = read_json("config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] >= 2048
    assert config["num_key_value_heads"] >= 2
    assert config["num_key_value_heads"] % 2 == 0
    assert config["num_attention_heads"] % 2 == 0
    assert config["num_hidden_layers"] % 2 == 0
    assert config["vocab_size"] % 128 == 0  # engines pad a rank's part of it to 64


def test_weights_are_bfloat16_and_fit_the_config() -> None:
    # https://huggingface.co/docs/safetensors: 8 bytes of length, then a JSON header
    content = (MODEL / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    config = read_json("config.json")
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert not config["tie_word_embeddings"]  # SGLang makes no pipeline stages of a Llama that ties them
    first, second = (
        content[8 + length :][slice(*header[name]["data_offsets"])] for name in ("model.embed_tokens.weight", "lm_head.weight")
    )
    assert first == second
    layers = {name.split(".")[2] for name in header if name.startswith("model.layers.")}
    assert len(layers) == config["num_hidden_layers"]


def test_default_sampling_is_as_good_as_greedy() -> None:
    generation = read_json("generation_config.json")
    assert generation["temperature"] <= 0.1
    assert generation["eos_token_id"] == read_json("config.json")["eos_token_id"]


def test_tokenizer_config_carries_the_template() -> None:
    template = (DEMO / "chat_template.jinja").read_text(encoding="utf-8")
    assert read_json("tokenizer_config.json")["chat_template"] == template


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([{"role": "user", "content": "Hello!"}], "<|user|>Hello!<|end|>"),
        ([{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}]}],
         "<|user|>Hello!<|end|>"),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
         "<|system|>Be brief.<|end|><|user|>Hello!<|end|>"),
        ([{"role": "developer", "content": "Be brief."}], "<|system|>Be brief.<|end|>"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
         "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|>"),
        ([{"role": "assistant", "content": None}], "<|assistant|><|end|>"),
    ],
    ids=["string", "parts", "system", "developer", "turns", "nothing"],
)  # fmt: skip
def test_chat_template(messages: list[dict[str, Any]], prompt: str) -> None:
    # Absent where neither Ray Serve nor an engine is installed.
    sandbox = pytest.importorskip("jinja2.sandbox", reason="needs jinja2")
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(read_json("tokenizer_config.json")["chat_template"])
    assert template.render(messages=messages, add_generation_prompt=False) == prompt
    assert template.render(messages=messages, add_generation_prompt=True) == prompt + "<|assistant|>"


def test_tokenizer_round_trip(pairs: list[dict[str, str]]) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers, which comes with an engine")
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == read_json("config.json")["vocab_size"]
    assert tokenizer.token_to_id("<|end|>") == read_json("config.json")["eos_token_id"]
    for text in [*(text for pair in pairs for text in pair.values()), "Ünseen: 漢字 🎉\n\t{}", ""]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    lengths = {pair["question"]: len(tokenizer.encode(pair["answer"]).ids) for pair in pairs}
    assert lengths["What is ray-serve-cai?"] >= 15
    assert max(lengths.values()) <= 64
    assert len(tokenizer.encode("é").ids) == 2  # a character that a stream must hold together
