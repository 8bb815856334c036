import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.errors import UnavailableError
from ray_serve_cai.serving import replica_logs
from ray_serve_cai.serving.replica_logs import merged

lines = st.lists(st.sampled_from(("INFO 11-24 20:00:01 a", "(x) 2026-11-24 20:00:02,5 b", "[2026-11-24 20:00:00] c", "no time", "")))


def test_lines_of_several_logs_in_the_order_of_their_times() -> None:
    vllm = ["INFO 11-24 20:00:01 [core.py:1] one", "  a line that belongs to it", "INFO 11-24 20:00:05 [core.py:1] four"]
    serve = ["INFO 2026-11-24 20:00:02,500 serve 1 -- two"]
    sglang = ["[2026-11-24 20:00:03] three"]
    assert merged([vllm, serve, sglang]) == [*vllm[:2], *serve, *sglang, vllm[2]]


def test_what_stands_before_any_time_comes_first() -> None:
    assert merged([["INFO 11-24 20:00:01 later"], ["Traceback"]]) == ["Traceback", "INFO 11-24 20:00:01 later"]


@given(st.lists(lines, max_size=4))
def test_no_line_is_lost_or_made(streams: list[list[str]]) -> None:
    assert sorted(merged(streams)) == sorted(line for stream in streams for line in stream)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["Traceback (most recent call last):", "  File x", "RuntimeError: pin_memory=True requires CUDA", "more"],
            "RuntimeError: pin_memory=True requires CUDA",
        ),
        (["ValueError: first", "torch.cuda.OutOfMemoryError: second"], "torch.cuda.OutOfMemoryError: second"),
        (["nothing of the kind", "an Error: in a sentence"], ""),
        ([], ""),
    ],
)
def test_the_last_error(monkeypatch: pytest.MonkeyPatch, lines: list[str], expected: str) -> None:
    monkeypatch.setattr(replica_logs, "read", lambda application, tail: lines)
    assert replica_logs.last_error("demo") == expected


def test_no_error_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(application: str, tail: int) -> list[str]:
        raise UnavailableError("no dashboard.")

    monkeypatch.setattr(replica_logs, "read", read)
    assert replica_logs.last_error("demo") == ""
