"""Markdown from signatures and docstrings, for docs/generate.py: what a class or a function is called with, gives and raises."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):$", re.MULTILINE)
ITEM = re.compile(r"^(\w+): ", re.MULTILINE)
TITLES = {"Args": "Arguments", "Attributes": "Fields", "Returns": "Result", "Raises": "Errors"}


def source(name: str, language: str) -> str:
    """A file below docs/, whole, in a fence."""
    return f"```{language}\n{(DOCS / name).read_text(encoding='utf-8').rstrip()}\n```\n"


def described(thing: Any) -> str:
    """A docstring as Markdown: its text, then its sections, with the items of a section as a list."""
    parts = SECTION.split(inspect.getdoc(thing) or "")
    text = [_prose(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        content = inspect.cleandoc(body)
        names = [] if title == "Returns" else ITEM.split(content)[1:]
        if names:
            items = [f"- `{name}`: {_prose(meaning)}" for name, meaning in zip(names[::2], names[1::2], strict=True)]
            text.append(f"{TITLES[title]}:\n\n" + "\n".join(items))
        else:
            text.append(f"{TITLES[title]}: {_prose(content)}")
    return "\n\n".join(text) + "\n"


def _prose(text: str) -> str:
    """Paragraphs of one line each; ``code`` of docstrings is `code` here."""
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs).replace("``", "`")


def called(name: str, function: Callable[..., Any]) -> str:
    """A signature, as a line of Python that compiles."""
    kind = "async def" if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else "def"
    result = inspect.signature(function).return_annotation
    return f"```python\n{kind} {name}({_parameters(function, typed=True)}) -> {result}: ...\n```\n"


def _parameters(function: Callable[..., Any], *, typed: bool) -> str:
    """Parameters as a caller gives them; annotations are texts, since the modules postpone their evaluation."""
    shown = []
    for one in inspect.signature(function).parameters.values():
        if one.name == "self":
            continue
        if typed and one.kind is one.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        stars = "**" if one.kind is one.VAR_KEYWORD else ""
        equals = "" if one.default is one.empty else f" = {_value(one.default)}" if typed else f"={_value(one.default)}"
        shown.append(f"{stars}{one.name}{f': {one.annotation}' if typed else ''}{equals}")
    return ", ".join(shown)


def _value(value: Any) -> str:
    """A default as a program would write it."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def whole(cls: type) -> str:
    """A class: its constructor where it has one of its own, what it is, and every public method and property."""
    constructor = vars(cls).get("__init__") if not getattr(cls, "_is_protocol", False) else None
    parts = [f"```python\n{cls.__name__}({_parameters(constructor, typed=False)})\n```\n"] if constructor else []
    parts.append(described(cls))
    for name, member in vars(cls).items():
        if isinstance(member, property) and not name.startswith("_"):
            parts.append(f"#### `{name}`\n\n{described(member)}")
        elif inspect.isfunction(member) and not name.startswith("_"):
            parts.append(f"#### `{name}`\n\n{called(name, member)}\n{described(member)}")
    return "\n".join(parts)


def card(cls: Any) -> str:
    """A dataclass or a pydantic model: its fields with type and default, then what they mean."""
    if issubclass(cls, BaseModel):
        defaults = {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}
    else:
        defaults = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
    lines = [
        f"    {name}: {kind}" + (f" = {_value(defaults[name])}" if name in defaults else "")
        for name, kind in inspect.get_annotations(cls).items()
        if name != "model_config"
    ]
    return f"```python\nclass {cls.__name__}:\n" + "\n".join(lines) + f"\n```\n\n{described(cls)}"


def summary(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].replace("``", "`")
