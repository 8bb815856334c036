"""Shared fixtures, and the acceptance report: ``--acceptance FILE`` writes each test's result and resumes from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--acceptance", type=Path, help="write results here, and do not repeat what passed at this commit")
    parser.addoption("--issue", type=int, help="only tests of this issue")
    parser.addoption("--images", action="append", default=[], help="images, or groups of them, for tests/images (default: the CPU images)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--acceptance"):
        config.pluginmanager.register(Acceptance(config.getoption("--acceptance")), "acceptance")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--issue")
    if wanted is not None:
        kept = [item for item in items if any(mark.args == (wanted,) for mark in item.iter_markers("issue"))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A red test shows the logs of the containers that it was given."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if callable(getattr(value, "logs", None)):
                report.sections.append((f"logs of {name}", value.logs()[-20000:]))
    return report


class Acceptance:
    """One JSON file: {test: {commit, seconds, result}}."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        self._results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done = [item for item in items if self._results.get(item.nodeid, {}) | {"seconds": 0} == self._entry("passed", 0)]
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._results[report.nodeid] = self._entry(report.outcome, round(report.duration, 1))
        if report.when == "teardown":  # a fixture that gave up rights has them again
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._results, indent=1, sort_keys=True) + "\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Nothing left to run is a success: all of it passed at this commit before."""
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._results:
            session.exitstatus = pytest.ExitCode.OK
        yield

    def _entry(self, result: str, seconds: float) -> dict[str, Any]:
        return {"commit": self._commit, "result": result, "seconds": seconds}


@pytest.fixture(scope="session")
def questions() -> dict[str, str]:
    """The demo model's questions and answers."""
    import yaml

    pairs = yaml.safe_load((ROOT / "images/demo/questions.yaml").read_text())
    return {pair["question"]: pair["answer"] for pair in pairs}
