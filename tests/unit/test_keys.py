"""API keys as people write them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import cli, keys
from ray_serve_cai.errors import ConfigError, UsageError
from ray_serve_cai.node.access import Key

pytestmark = pytest.mark.issue(10)
ONE, OTHER = "sk-one-0123456789abcdef", "sk-other-0123456789abcd"


def test_a_file() -> None:
    text = yaml.safe_dump(
        [
            {"name": "alice", "sha256": keys.digest_of(ONE), "models": ["chat"], "requests_per_minute": 60, "concurrent": 4},
            {"name": "ops", "key": OTHER, "admin": True},
        ]
    )
    assert keys.parse(text, "f") == (
        Key("alice", keys.digest_of(ONE), ("chat",), 60, 4),
        Key("ops", keys.digest_of(OTHER), admin=True),
    )


@pytest.mark.parametrize("text", [f"{ONE},admin={OTHER}", f"  {ONE}\n admin={OTHER}\n", f"{ONE} , admin={OTHER},"])
def test_a_variable(text: str) -> None:
    assert keys.parse(text, "v") == (Key("key-1", keys.digest_of(ONE)), Key("admin", keys.digest_of(OTHER), admin=True))


def test_a_key_may_end_like_base64() -> None:
    assert keys.parse("c2stMDEyMzQ1Njc4OWFiY2RlZg==", "v")[0].digest == keys.digest_of("c2stMDEyMzQ1Njc4OWFiY2RlZg==")


SECRET = "tooshort-secret"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("[]", "holds no key"),
        (SECRET, r"v: \[0\].*at least 20"),
        ("sk-with-a-colon:0123456789abcdef", "at least 20 letters, digits or any of"),
        (f"[{{name: a, key: {SECRET}}}]", r"\[0\].*at least 20"),
        (f"[{{name: a, secret: {SECRET}}}]", r"\[0\].secret: Extra inputs"),
        (f"[{{name: a}}, {SECRET}]", "either key or sha256|is no mapping"),
        (f"[{{name: a, key: {ONE}, sha256: {'a' * 64}}}]", "either key or sha256"),
        (f"[{{name: 'a b', key: {ONE}}}]", r"\[0\].name"),
        (f"[{{name: a, key: {ONE}, concurrent: 0}}]", r"\[0\].concurrent"),
        (f"[{{name: a, key: {ONE}, models: []}}]", r"\[0\].models"),
        (f"[{{name: a, sha256: {ONE}}}]", r"\[0\].sha256"),
        (f"[{{name: a, key: {ONE}}}, {{name: a, key: {OTHER}}}]", "two keys are named 'a'"),
        (f"[{{name: a, key: {ONE}}}, {{name: b, key: {ONE}}}]", "'a' and 'b' are the same key"),
        (f"[{{name: {SECRET}", "neither YAML nor a list"),
    ],
)
def test_what_cannot_be_used_is_said_without_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        keys.parse(text, "v")
    assert not any(secret in str(raised.value) for secret in (SECRET, ONE, OTHER))


@given(st.text(max_size=200))
def test_any_text_is_keys_or_an_error(text: str) -> None:
    with suppress(ConfigError):
        assert all(len(key.digest) == 64 for key in keys.parse(text, "v"))


def test_where_they_come_from(tmp_path: Path) -> None:
    assert keys.source({}) is None
    file = tmp_path / "keys.yaml"
    found = keys.source({keys.POINTER: str(file)})
    assert found is not None
    assert found.stamp() is None
    with pytest.raises(ConfigError, match=r"keys.yaml': No such file or directory; mount the file there"):
        found.read()
    file.write_text(ONE)
    before = found.stamp()
    assert [key.name for key in found.read()] == ["key-1"]
    file.write_text(f"{ONE} {OTHER}")
    os.utime(file, ns=(1, 1))
    assert found.stamp() != before
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="no text"):
        found.read()
    given_ = keys.source({keys.VARIABLE: ONE})
    assert given_ is not None
    assert given_.stamp() == given_.stamp() != None  # noqa: E711
    assert ONE not in str(given_.read())
    for env, words in (
        ({keys.VARIABLE: ONE, keys.POINTER: "f"}, "both set"),
        ({keys.VARIABLE: ONE, "VLLM_API_KEY": "x"}, "VLLM_API_KEY are both set"),
    ):
        with pytest.raises(UsageError, match=words):
            keys.source(env)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["key", "alice", "--models", "a,b", "--requests-per-minute", "5", "--concurrent", "2", "--admin"]) == 0
    said = capsys.readouterr()
    key = said.err.splitlines()[0].rpartition(" ")[2]
    assert keys.parse(said.out, "f") == (Key("alice", keys.digest_of(key), ("a", "b"), 5, 2, True),)
    keys.check(key)
    assert cli.main(["key", "bob", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"key": made["key"], "entry": {"name": "bob", "sha256": keys.digest_of(made["key"])}}
    assert cli.main(["key", "a b"]) == 64
    assert "name is 'a b'" in capsys.readouterr().err
