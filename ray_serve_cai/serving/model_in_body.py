"""Which model a request names, read from its body. Pure."""

from __future__ import annotations

import json
from email.message import Message

from python_multipart.exceptions import ParseError
from python_multipart.multipart import MultipartParser

LONGEST_NAME = 4096
"""Bytes of a form's field that can be a model's name."""


def model_in(content_type: str, body: bytes) -> str | None:
    """The text that ``model`` has in a JSON object or in a form (multipart/form-data); None where there is none, or no such body.

    Only what a body is read as makes a difference: JSON is looked for whatever it is called, since clients forget to say so.
    """
    header = Message()
    header["content-type"] = content_type
    if header.get_content_maintype() == "multipart":
        boundary = header.get_param("boundary")
        return _in_form(boundary, body) if isinstance(boundary, str) and boundary else None
    return _in_json(body)


def _in_json(body: bytes) -> str | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    named = document.get("model") if isinstance(document, dict) else None
    return named if isinstance(named, str) else None


class _Form:
    """Collects the field ``model`` while a form is parsed."""

    def __init__(self) -> None:
        self.value = bytearray()
        self.whole = False
        self._header, self._header_value = bytearray(), bytearray()
        self._here = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._end_of_header,
            "on_part_data": self._data,
            "on_part_end": self._end_of_part,
        }

    def _part(self) -> None:
        self._here = False

    def _end_of_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            header = Message()
            header["content-disposition"] = self._header_value.decode(errors="replace")
            self._here = not self.whole and header.get_param("name", header="content-disposition") == "model"
        self._header.clear()
        self._header_value.clear()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._here and len(self.value) <= LONGEST_NAME:
            self.value.extend(data[start:end])

    def _end_of_part(self) -> None:
        self.whole = self.whole or self._here
        self._here = False


def _in_form(boundary: str, body: bytes) -> str | None:
    form = _Form()
    try:
        parser = MultipartParser(boundary.encode(), form.callbacks())  # type: ignore[arg-type]  # a mapping of these very names
        for start in range(0, len(body), 1 << 16):
            parser.write(body[start : start + (1 << 16)])
            if form.whole:
                break
        return form.value.decode() if form.whole and len(form.value) <= LONGEST_NAME else None
    except (ParseError, ValueError):
        return None
