import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ray_serve_cai import logs
from ray_serve_cai.logs import JSON, TEXT, Speaker, relayed

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
HERE = Speaker("launcher", "head", "node-0")
AS_JSON = Speaker("launcher", "head", "node-0", JSON)


@pytest.fixture(autouse=True)
def as_it_was(root_logger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_speaker", Speaker("python"))


def test_records_go_to_stderr_with_all_that_tells_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "launcher")
    logging.getLogger("any").info("before the plan")
    logs.speak_as("head")
    logging.getLogger("any").info("port %d", 1)
    logging.getLogger("any").debug("not this")
    logging.getLogger("httpx").info("nor this")
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert re.fullmatch(rf"{STAMP} INFO -@\S+ launcher: before the plan", first)
    assert re.fullmatch(rf"{STAMP} INFO head@\S+ launcher: port 1", second)


def test_records_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "launcher", JSON)
    logs.speak_as("worker")
    try:
        raise ValueError("ü")
    except ValueError:
        logging.getLogger("any").exception("two\nlines")
    record = json.loads(capsys.readouterr().err)
    assert list(record) == ["time", "level", "node", "role", "component", "message"]
    assert (record["level"], record["role"], record["component"]) == ("ERROR", "worker", "launcher")
    assert record["message"].startswith("two\nlines\nTraceback")
    assert record["message"].endswith("ValueError: ü")
    assert re.fullmatch(STAMP, record["time"])


def test_the_last_words_are_those_that_people_know() -> None:
    assert logs.last_words("no; do") == "ray-serve-cai: error: no; do"
    logs.set_up("info", "launcher", JSON)
    assert json.loads(logs.last_words("no; do"))["message"] == "ray-serve-cai: error: no; do"


RECORD = Speaker("serve", "head", "node-0", JSON).line("WARNING", "not\nyet", when=0.25)


@pytest.mark.parametrize(
    ("line", "level", "component", "message", "ip"),
    [
        pytest.param("plain", "INFO", "ray", "plain", "", id="anything"),
        pytest.param("E 2026 ERROR x", "ERROR", "ray", "E 2026 ERROR x", "", id="a level"),
        pytest.param("x" * 200 + " ERROR", "INFO", "ray", "x" * 200 + " ERROR", "", id="a level far away"),
        pytest.param(
            "\x1b[36m(ServeReplica:demo:engine pid=7, ip=10.0.0.2)\x1b[0m WARNING slow",
            "WARNING",
            "ServeReplica:demo:engine",
            "WARNING slow",
            "10.0.0.2",
            id="another node",
        ),
        pytest.param("(ServeController pid=7) INFO y", "INFO", "ServeController", "INFO y", "", id="this node"),
        pytest.param("(EngineCore pid=7)", "INFO", "EngineCore", "", "", id="an empty line"),
        pytest.param('{"time": 1}', "INFO", "ray", '{"time": 1}', "", id="another's JSON"),
        pytest.param('{"time": ', "INFO", "ray", '{"time": ', "", id="half a record"),
    ],
)
def test_a_childs_line(line: str, level: str, component: str, message: str, ip: str) -> None:
    record = json.loads(relayed(AS_JSON, "ray", line))
    assert (record["level"], record["component"], record["message"], record.get("from", "")) == (level, component, message, ip)
    assert (record["role"], record["node"]) == ("head", "node-0")
    where = f"{component}@{ip}" if ip else component
    assert re.fullmatch(rf"{STAMP} {level} head@node-0 {re.escape(f'{where}: {message}')}", relayed(HERE, "ray", line))


def test_a_record_of_our_own() -> None:
    assert relayed(AS_JSON, "serve", RECORD) == RECORD
    assert relayed(HERE, "serve", RECORD) == "1970-01-01T00:00:00.250Z WARNING head@node-0 serve: not\nyet"


def test_a_childs_last_words() -> None:
    line = "ray-serve-cai: error: no; do"
    assert relayed(HERE, "serve", line) == line
    assert relayed(HERE, "serve", Speaker("serve", "head", "node-0", JSON).line("ERROR", line)) == line
    record = json.loads(relayed(AS_JSON, "serve", line))
    assert (record["level"], record["component"], record["message"]) == ("ERROR", "serve", line)


@pytest.mark.parametrize("style", [TEXT, JSON])
def test_last_words_are_found_in_a_log(style: str) -> None:
    logs.set_up("info", "launcher", style)
    assert logs.error_in(logs.last_words("no; do")) == "no; do"
    assert logs.error_in(Speaker("serve", style=style).line("ERROR", "no; do")) is None
    assert logs.error_in("plain") is None


def test_text_is_the_default() -> None:
    assert Speaker("x").style == TEXT


def test_secrets_are_in_no_record(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.getLogRecordFactory()
    logs.set_up("info", "replica")
    logs.hide([])
    assert logging.getLogRecordFactory() is before
    try:
        logs.hide(["sk-one", "100%"])
        logging.getLogger("any").info("args=%r %d%%", {"api_key": "sk-one"}, 100)
        logging.getLogger("any").info("nothing %s", "here")
    finally:
        logging.setLogRecordFactory(before)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("replica: args={'api_key': '***'} ***")
    assert second.endswith("replica: nothing here")


WRITES_BESIDE_ANOTHER_CONFIGURATION = """
import logging, logging.config, logging.handlers, sys
from ray_serve_cai import logs

logger = logging.getLogger("ray.serve")
buffer = logging.handlers.MemoryHandler(1, target=logging.FileHandler(sys.argv[1]))
logger.addHandler(buffer)
logs.outlive_configuration(logger)
for number in range(3):
    logger.warning("record %d", number)
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
assert buffer.buffer == [], buffer.buffer
"""


def test_a_buffered_log_file_outlives_an_engine_that_configures_logging(tmp_path: Path) -> None:
    file = tmp_path / "replica.log"
    subprocess.run([sys.executable, "-c", WRITES_BESIDE_ANOTHER_CONFIGURATION, str(file)], check=True, timeout=30)
    assert file.read_text().split("\n") == ["record 0", "record 1", "record 2", ""]
