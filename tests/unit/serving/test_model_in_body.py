"""A request's model, from bodies of all kinds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.serving.model_in_body import LONGEST_NAME, model_in

pytestmark = pytest.mark.issue(10)
JSON = "application/json"
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def form(fields: list[tuple[str, bytes]], boundary: str = "b0undary") -> tuple[str, bytes]:
    """A form as clients send it."""
    parts = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary.encode(), name.encode(), value)
        for name, value in fields
    )
    return f"multipart/form-data; boundary={boundary}", parts + b"--%b--\r\n" % boundary.encode()


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model": "a/b", "x": 1}', "a/b"),
        (b'{"x": {"model": "inner"}, "model": "outer"}', "outer"),
        (b'{"x": {"model": "inner"}}', None),
        (b'{"mod\\u0065l": "\\u00e9"}', "\u00e9"),
        ('{"model": "a"}'.encode("utf-16"), "a"),
        (b'{"model": 5}', None),
        (b'{"model": null}', None),
        (b'["model"]', None),
        (b'{"model": "a"', None),
        (b"\xff\xfe\xff", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_json(body: bytes, model: str | None) -> None:
    assert model_in(JSON, body) == model
    assert model_in("", body) == model


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), st.none() | st.text())
def test_any_json_object(document: dict[str, object], model: str | None) -> None:
    document = {**document, "model": model}
    assert model_in(JSON, json.dumps(document).encode()) == model


@given(st.text(max_size=40), st.binary(max_size=300))
def test_nothing_that_is_sent_breaks_it(content_type: str, body: bytes) -> None:
    model_in(content_type, body)
    model_in(f"multipart/form-data; boundary={content_type}", body)
    model_in("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + body)


@given(st.binary(max_size=2000), st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=50), st.booleans())
def test_forms(file: bytes, model: str, last: bool) -> None:
    fields = [("file", file.replace(b"b0undary", b"")), ("language", b"en")]
    fields.insert(len(fields) if last else 0, ("model", model.encode()))
    assert model_in(*form(fields)) == model


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        form([("file", b"x"), ("other", b"model")]),
        form([("model", b"x" * (LONGEST_NAME + 1))]),
        form([("model", b"\xff\xfe")]),
        ("multipart/form-data", form([("model", b"a")])[1]),
        ("multipart/form-data; boundary=other", form([("model", b"a")])[1]),
        (form([])[0], form([("model", b"a")])[1][:60]),
    ],
)
def test_forms_without_a_model(content_type: str, body: bytes) -> None:
    assert model_in(content_type, body) is None


def test_a_large_file_before_the_model() -> None:
    assert model_in(*form([("file", bytes(8 << 20)), ("model", b"whisper")])) == "whisper"
