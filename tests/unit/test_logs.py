import logging

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
