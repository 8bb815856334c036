import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ray_serve_cai import logs


@pytest.mark.usefixtures("root_logger")
def test_records_go_to_stderr_with_time_level_and_component(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "node")
    logging.getLogger("any").info("role %s", "head")
    logging.getLogger("any").debug("not this")
    logging.getLogger("httpx").info("nor this")
    out, err = capsys.readouterr()
    assert out == ""
    time, rest = err.rstrip("\n").split(" ", 1)
    assert rest == "INFO node: role head"
    assert time.endswith("Z")
    assert "T" in time


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
