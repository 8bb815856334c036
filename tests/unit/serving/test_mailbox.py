import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from ray_serve_cai.errors import ConfigError, EngineError, RayServeCaiError, ResourceError, UnavailableError
from ray_serve_cai.serving import mailbox
from ray_serve_cai.serving.mailbox import DONE, FAILED, PLANNED, UNDER_WAY, Answer, Mailbox, Request

CONFIG = {"models": [{"source": "demo", "engine_args": {"a": [1, None, 0.5]}}]}


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path)


def when_polled(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """The serving process's side: one step at each poll, the last one again and again."""
    left = list(steps)

    def sleep(seconds: float) -> None:
        (left.pop(0) if len(left) > 1 else left[0])()

    monkeypatch.setattr(mailbox.time, "sleep", sleep)


def nothing() -> None:
    """The serving process does something else."""


@pytest.mark.parametrize("request_", [Request(CONFIG), Request({}, allow_downtime=True), Request(CONFIG, dry_run=True)])
def test_what_is_sent_is_taken_once(box: Mailbox, request_: Request) -> None:
    assert box.take() is None
    box.send(request_)
    assert box.take() == request_
    assert box.take() is None


def test_requests_can_be_told_apart() -> None:
    assert Request(CONFIG) != Request(CONFIG)


def test_only_this_user_can_read_what_may_hold_secrets(box: Mailbox, tmp_path: Path) -> None:
    request = Request(CONFIG)
    box.send(request)
    box.answer(Answer(request.id, DONE))
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {
        "update.json": "0o600",
        f"update-answer.{request.id}.json": "0o600",
    }


def test_a_second_request_waits_for_the_first_to_be_looked_at(box: Mailbox, tmp_path: Path) -> None:
    first, second = Request(CONFIG), Request(CONFIG)
    box.send(first)
    with pytest.raises(UnavailableError, match="another update has not been looked at yet"):
        box.send(second)
    assert [file.name for file in tmp_path.iterdir()] == ["update.json"]
    assert box.take() == first
    box.send(second)
    assert box.take() == second


@pytest.mark.parametrize("content", ["", "{", '{"id": "x"', "[1"])
def test_half_a_file_is_none_yet(box: Mailbox, tmp_path: Path, content: str) -> None:
    (tmp_path / "update.json").write_text(content)
    request = Request(CONFIG)
    (tmp_path / f"update-answer.{request.id}.json").write_text(content)
    assert box.take() is None
    assert box.answer_to(request) is None
    box.send(request)
    assert box.take() == request, "what cannot be read stands in nobody's way"


def test_a_client_that_died_as_it_sent_blocks_no_other(box: Mailbox, tmp_path: Path) -> None:
    """Half a file never has the name that is looked at."""
    (tmp_path / "update.0123456789abcdef").write_text("{")
    request = Request(CONFIG)
    assert box.take() is None
    box.send(request)
    assert box.take() == request


def test_a_new_serving_process_forgets_what_was_sent_to_a_former_one(box: Mailbox) -> None:
    box.clear()
    box.send(Request(CONFIG))
    box.clear()
    assert box.take() is None


def test_an_answer_is_for_its_request_alone(box: Mailbox) -> None:
    mine, other = Request(CONFIG), Request(CONFIG)
    assert box.answer_to(mine) is None
    box.answer(Answer(other.id, FAILED))
    assert box.answer_to(mine) is None
    answer = Answer(mine.id, UNDER_WAY, {"demo": "unchanged"}, "1 of 2")
    box.answer(answer)
    assert box.answer_to(mine) == answer


def test_withdrawing_takes_back_what_was_not_looked_at(box: Mailbox) -> None:
    mine, other = Request(CONFIG), Request(CONFIG)
    box.send(mine)
    box.withdraw(other)
    assert box.take() == mine
    box.withdraw(mine)
    box.send(other)
    box.withdraw(mine)
    assert box.take() == other


@pytest.mark.parametrize(
    ("name", "kind"), [("ResourceError", ResourceError), ("ConfigError", ConfigError), ("", EngineError), ("Odd", EngineError)]
)
def test_an_error_arrives_as_it_was_raised(name: str, kind: type[RayServeCaiError]) -> None:
    error = Answer("1", FAILED, error="the fact.", error_type=name).as_error()
    assert (type(error), str(error)) == (kind, "the fact.")


def test_each_new_answer_is_given_once(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(CONFIG)
    answers = [
        Answer(request.id, UNDER_WAY, {"demo": "x"}),
        Answer(request.id, UNDER_WAY, {"demo": "x"}, "0 of 1"),
        Answer(request.id, DONE, {"demo": "x"}),
    ]
    box.answer(Answer("an older one", DONE))
    say = [lambda answer=answer: box.answer(answer) for answer in answers]
    when_polled(monkeypatch, nothing, say[0], nothing, say[1], nothing, say[2])
    assert list(box.follow(request, 60)) == answers


def test_a_plan_is_a_last_answer(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(CONFIG, dry_run=True)
    planned = Answer(request.id, PLANNED, {"demo": "unchanged"})
    when_polled(monkeypatch, lambda: box.answer(planned))
    assert list(box.follow(request, 60)) == [planned]


def test_what_failed_is_given_and_raised(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(CONFIG)
    failed = Answer(request.id, FAILED, error="no memory.", error_type="ResourceError")
    when_polled(monkeypatch, lambda: box.answer(failed))
    answers = box.follow(request, 60)
    assert next(answers) == failed
    with pytest.raises(ResourceError, match=r"^no memory\.$"):
        next(answers)


@pytest.mark.parametrize(
    ("detail", "taken", "last"),
    [
        (None, False, "the serving process has not looked at it, and it was taken back"),
        ("", True, "it has begun"),
        ("demo: 0 of 2 new replicas run", True, "demo: 0 of 2 new replicas run"),
    ],
)
def test_waiting_has_an_end(box: Mailbox, monkeypatch: pytest.MonkeyPatch, detail: str | None, taken: bool, last: str) -> None:
    request = Request(CONFIG)
    now = 0.0

    def later() -> None:
        nonlocal now
        now += 1
        if taken:
            box.take()
        if detail is not None:
            box.answer(Answer(request.id, UNDER_WAY, detail=detail))

    monkeypatch.setattr(mailbox.time, "monotonic", lambda: now)
    when_polled(monkeypatch, later)
    with pytest.raises(UnavailableError) as caught:
        list(box.follow(request, 3))
    assert str(caught.value) == f"not done after 3 s; last seen: {last}."
    assert box.take() is None


def test_an_interrupt_takes_the_request_back(box: Mailbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    when_polled(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(box.follow(Request(CONFIG), 60))
    assert box.take() is None
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_takes_its_request_back(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = Request(CONFIG), Request(CONFIG)
    when_polled(monkeypatch, lambda: box.answer(Answer(mine.id, UNDER_WAY)))
    answers = box.follow(mine, 60)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    box.send(other)
    assert box.take() == other


def test_of_two_that_send_at_once_one_is_told_to_wait(box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Request(CONFIG), Request({})

    def interleaved(name: str) -> Callable[..., None]:
        step = getattr(os, name)

        def then(*paths: Path) -> None:
            monkeypatch.undo()
            box.send(second)  # while the first has written, and not yet handed over
            step(*paths)

        return then

    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, interleaved(name))
    with pytest.raises(UnavailableError, match="another update has not been looked at yet"):
        box.send(first)
    assert [file.name for file in tmp_path.iterdir()] == ["update.json"]
    assert box.take() == second


def test_both_sides_at_once(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "POLL_S", 0.001)
    served: list[Request] = []

    def serve() -> None:
        while len(served) < 20:
            if request := box.take():
                served.append(request)
                box.answer(Answer(request.id, UNDER_WAY))
                box.answer(Answer(request.id, DONE))

    thread = Thread(target=serve)
    thread.start()
    sent = [Request({"n": number}) for number in range(20)]
    assert [list(box.follow(request, 30))[-1].state for request in sent] == [DONE] * 20
    thread.join()
    assert served == sent
