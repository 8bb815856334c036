import json
from typing import Any

import pytest

from ray_serve_cai.engines.base import Message
from ray_serve_cai.engines.refusals import Refusal, respond

FULL = Refusal(503, "service_unavailable", "At its limit.", retry_after_s=7)
UNKNOWN = Refusal(404, "NotFoundError", "No such model.", "model")
WRONG = Refusal(400, "BadRequestError", "n is 0.", "n")


class Sent(list[Message]):
    """What an application has sent."""

    async def __call__(self, message: Message) -> None:
        self.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self[0]["headers"])


@pytest.mark.parametrize(
    ("refusal", "path", "document"),
    [
        (FULL, "/v1/completions", {"error": {"message": "At its limit.", "type": "service_unavailable", "param": None, "code": 503}}),
        (UNKNOWN, "/v1/embeddings", {"error": {"message": "No such model.", "type": "NotFoundError", "param": "model", "code": 404}}),
        (FULL, "/tokenize", {"error": {"message": "At its limit.", "type": "service_unavailable", "param": None, "code": 503}}),
        (FULL, "/v1/messages", {"type": "error", "error": {"type": "overloaded_error", "message": "At its limit."}}),
        (UNKNOWN, "/v1/messages", {"type": "error", "error": {"type": "not_found_error", "message": "No such model."}}),
        (WRONG, "/v1/messages/count_tokens", {"type": "error", "error": {"type": "invalid_request_error", "message": "n is 0."}}),
        (WRONG, "/api/chat", {"error": "n is 0."}),
        (FULL, "/api/generate", {"error": "At its limit."}),
    ],
)
async def test_each_api_is_answered_in_its_own_form(refusal: Refusal, path: str, document: dict[str, Any]) -> None:
    sent = Sent()
    await refusal.answer(path, sent)
    assert refusal.document(path) == document == json.loads(sent[1]["body"])
    assert sent[0]["status"] == refusal.status


@pytest.mark.parametrize(("refusal", "header"), [(FULL, b"7"), (WRONG, None)])
async def test_when_to_come_again_is_a_header(refusal: Refusal, header: bytes | None) -> None:
    sent = Sent()
    await refusal.answer("/v1/completions", sent)
    assert sent.headers.get(b"retry-after") == header


async def test_an_answer_is_json_bytes() -> None:
    sent = Sent()
    await respond(sent, 418, {"a": "ä"})
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], sent.headers[b"content-type"]) == (418, b"application/json")
    assert sent.headers[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert json.loads(sent[1]["body"]) == {"a": "ä"}
