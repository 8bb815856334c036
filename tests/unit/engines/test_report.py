import pytest

from ray_serve_cai import errors
from ray_serve_cai.engines import report
from ray_serve_cai.engines.report import StartReport

kv = pytest.importorskip("ray.experimental.internal_kv", reason="ray is not installed, so there is no store to stand in for")


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[bytes, bytes], bytes]:
    """The cluster's key-value store, as a dictionary."""
    content: dict[tuple[bytes, bytes], bytes] = {}

    def put(key: bytes, value: bytes, namespace: bytes) -> None:
        content[namespace, key] = value

    def get(key: bytes, namespace: bytes) -> bytes | None:
        return content.get((namespace, key))

    monkeypatch.setattr(kv, "_internal_kv_put", put)
    monkeypatch.setattr(kv, "_internal_kv_get", get)
    return content


def test_no_report_yet() -> None:
    assert report.read("demo") == StartReport()
    assert StartReport().as_error() is None


def test_the_last_report_counts(store: dict[tuple[bytes, bytes], bytes]) -> None:
    report.write("demo", StartReport(phase="loading weights"))
    report.write("demo", StartReport(error="no memory", error_type="ResourceError"))
    report.write("other/model", StartReport(phase="ready"))
    assert report.read("demo") == StartReport(error="no memory", error_type="ResourceError")
    assert set(store) == {(b"ray-serve-cai", b"demo"), (b"ray-serve-cai", b"other/model")}


@pytest.mark.parametrize(
    ("name", "kind"), [("ResourceError", errors.ResourceError), ("ConfigError", errors.ConfigError), ("Odd", errors.EngineError)]
)
def test_an_error_arrives_as_it_was_raised(name: str, kind: type[errors.RayServeCaiError]) -> None:
    error = StartReport(error="the fact", error_type=name).as_error()
    assert type(error) is kind
    assert str(error) == "the fact"
