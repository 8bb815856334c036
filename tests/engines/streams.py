"""Server-sent events, so that two streams can be compared.

A server may join several tokens in one event when its reader is slow, and does so at other places each time. A stream is
therefore folded: what belongs together is joined, and the order of kinds (role, reasoning, content, a tool's arguments) stays.
"""

from __future__ import annotations

import json
from typing import Any

FRAGMENTS = frozenset({"text", "content", "reasoning", "reasoning_content", "arguments", "partial_json", "thinking", "delta", "refusal"})
"""Fields that a stream sends in pieces, as text."""

Event = tuple[str, Any]


def parse(text: str) -> list[Event]:
    """Events as (name, data); data that is not JSON stays text.

    >>> parse('event: ping\\ndata: {"a": 1}\\n\\ndata: [DONE]\\n\\n')
    [('ping', {'a': 1}), ('', '[DONE]')]
    """
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line.partition(":") for line in block.split("\n") if line]
        if lines:
            fields = {name: "\n".join(value.removeprefix(" ") for key, _, value in lines if key == name) for name, _, _ in lines}
            events.append(
                (fields.get("event", ""), _json(fields["data"]) if fields.keys() <= {"event", "data"} and "data" in fields else fields)
            )
    return events


def fold(events: list[Event]) -> dict[str, Any]:
    """The stream in a form that does not depend on how its tokens were grouped.

    Streams of choices (chat, completions) become one object with each choice's order of kinds; streams of typed events
    (responses, messages) stay a list in which consecutive deltas of the same item are one.
    """
    chunks = [data for _, data in events if isinstance(data, dict) and "choices" in data]
    others = [[name, data] for name, data in events if not (isinstance(data, dict) and "choices" in data)]
    folded: dict[str, Any] = {"events": _joined_events(others)}
    if chunks:
        choices: dict[int, dict[str, Any]] = {}
        kinds: dict[int, list[str]] = {}
        for chunk in chunks:
            for choice in chunk["choices"]:
                choices[choice["index"]] = _join(choices.get(choice["index"], {}), choice)
                order = kinds.setdefault(choice["index"], [])
                order += [kind for kind in _kinds(choice) if order[-1:] != [kind]]
        whole: dict[str, Any] = {}
        for chunk in chunks:
            whole = _join(whole, {key: value for key, value in chunk.items() if key != "choices"})
        folded |= {
            "chunk": whole,
            "choices": [choices[index] for index in sorted(choices)],
            "order": [kinds[index] for index in sorted(kinds)],
            "chunks without choices": [comparable for comparable in chunks if not comparable["choices"]],
            "the last chunk": sorted(chunks[-1]),
        }
    return folded


def fold_lines(text: str) -> list[Any]:
    """A stream of JSON lines, as Ollama's form has it: consecutive lines of the same fields are one, their texts joined."""
    joined: list[Any] = []
    for line in text.splitlines():
        data = _json(line)
        if joined and isinstance(data, dict) and isinstance(joined[-1], dict) and data.keys() == joined[-1].keys() and not data.get("done"):
            joined[-1] = _join(joined[-1], data)
        else:
            joined.append(data)
    return joined


def _kinds(choice: dict[str, Any]) -> list[str]:
    delta = choice.get("delta", {"text": choice.get("text")})
    plain = [key for key, value in delta.items() if key != "tool_calls" and value]
    tools = [f"tool {call['index']}" for call in delta.get("tool_calls") or []]
    return plain + tools


def _join(old: Any, new: Any, name: str = "") -> Any:
    """``new`` after ``old``: pieces of text and lists are continued, anything else replaced unless it is null."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _join(old.get(key), new.get(key), key) for key in [*old, *(key for key in new if key not in old)]}
    if isinstance(old, list) and isinstance(new, list):
        return _by_index(old + new) if name == "tool_calls" else old + new
    if isinstance(old, str) and isinstance(new, str) and name in FRAGMENTS:
        return old + new
    return old if new is None else new


def _by_index(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: dict[int, dict[str, Any]] = {}
    for call in calls:
        joined[call["index"]] = _join(joined.get(call["index"], {}), call)
    return [joined[index] for index in sorted(joined)]


def _joined_events(events: list[list[Any]]) -> list[Any]:
    """Consecutive deltas of one item joined; the counter of events becomes a statement that it counted without a gap."""
    joined: list[Any] = []
    numbers: list[int] = []
    for name, given in events:
        data = given
        if isinstance(data, dict) and "sequence_number" in data:
            numbers.append(data["sequence_number"])
            data = {key: value for key, value in data.items() if key != "sequence_number"}
        if isinstance(data, dict) and "meta_info" in data and joined and _continues(joined[-1][1], data):
            joined[-1][1] = data
            continue
        same = isinstance(data, dict) and "delta" in data and joined and joined[-1][0] == name and _of_one_item(joined[-1][1], data)
        if same and str(data.get("type", "")).endswith("delta"):
            joined[-1][1] = _join(joined[-1][1], data)
        else:
            joined.append([name, data])
    if numbers:
        joined.append(["sequence numbers without a gap", numbers == list(range(len(numbers)))])
    return joined


def _continues(old: Any, new: dict[str, Any]) -> bool:
    """Whether ``new`` holds all of ``old``, as each event of SGLang's native stream holds what came before it."""
    alike = isinstance(old, dict) and old.keys() == new.keys() and old.get("index") == new.get("index")
    return alike and str(new.get("text")).startswith(str(old.get("text")))


def _of_one_item(old: Any, new: Any) -> bool:
    places = ("type", "index", "item_id", "output_index", "content_index")
    kind = [event.get("delta", {}).get("type") if isinstance(event.get("delta"), dict) else None for event in (old, new)]
    return kind[0] == kind[1] and all(old.get(place) == new.get(place) for place in places)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
