import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai import __version__, cli
from ray_serve_cai.commands import common, watching
from ray_serve_cai.engines import registry
from ray_serve_cai.errors import UnavailableError, UsageError
from ray_serve_cai.node import health
from ray_serve_cai.serving import mailbox
from ray_serve_cai.serving.mailbox import Answer, Mailbox, Request

COMMANDS = ("node", "plan", "doctor", "health", "status", "serve", "deploy", "fetch", "engines")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of one command, in this process."""

    def ran(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(list(arguments))
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return ran


def one_line_error(err: str) -> str:
    assert err.startswith("ray-serve-cai: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    example = out.partition("example:\n")[2]
    assert code == 0
    assert f"ray-serve-cai {command}" in example


def test_help_lists_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n    {command} " in out for command in COMMANDS)


def test_the_version(run: Run) -> None:
    assert run("--version") == (0, f"ray-serve-cai {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [("nod",), ("plan", "--jsn"), ("plan", "x"), ("status", "--timeout", "soon"), ("plan", "--env-file"), ("deploy",)],
    ids=repr,
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (64, "")
    assert "ray-serve-cai: error: " in err
    assert "usage: " in err


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (64, "")
    assert all(f"\n    {command} " in err for command in COMMANDS)


def test_a_process_beside_the_one_that_runs_the_node_has_nothing_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "n0", "GROUP_RANK": "1", "LOCAL_RANK": "3", "RANK": "7"}.items():
        monkeypatch.setenv(name, value)
    code, _, err = run("node")
    assert code == 0
    assert "LOCAL_RANK is 3: the first process of this machine runs the node; this one has nothing to do" in err
    idle = json.loads(run("plan", "--json")[1])
    assert (idle["role"], idle["command"], "models" in idle) == ("idle", [], False)
    assert "command         nothing to start\n" in run("plan")[1]


def test_a_plan_is_refused_as_the_node_would_be(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RSCAI_TOKEN", "short")
    assert run("plan")[0] == 64
    monkeypatch.setenv("RSCAI_TOKEN_FILE", str(tmp_path))
    code, _, err = run("plan")
    assert (code, "both set" in one_line_error(err)) == (64, True)


def test_a_plan_for_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("LWS_LEADER_ADDRESS=web-0.web\nLWS_WORKER_INDEX=1\n"))
    code, out, _ = run("plan", "--json", "--env-file", "-")
    assert (code, json.loads(out)["variables"]) == (0, {"LWS_LEADER_ADDRESS": "web-0.web", "LWS_WORKER_INDEX": "1"})


def test_a_node_that_cannot_serve(run: Run, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("RSCAI_STATUS_PORT", str(free_port))
    monkeypatch.setenv("RSCAI_MODEL", "/nowhere")
    code, out, err = run("doctor")
    assert (code, err) == (71, "")
    assert "error    models      model path '/nowhere' does not exist on this node\n" in out
    assert "                     fix: mount it at the same path on every node\n" in out
    assert out.splitlines()[-1].startswith("this node cannot serve: ")
    code, out, _ = run("doctor", "--json")
    assert code == 71
    assert next(found for found in json.loads(out) if found["check"] == "models")["level"] == "error"
    assert run("doctor", "--peer", "a/b")[0] == 64


def test_a_plan_as_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_HEAD_ADDRESS", "[fd00::9]")
    code, out, err = run("plan", "--json")
    plan = json.loads(out)
    assert (code, err) == (0, "")
    assert {"role", "head_address", "node_ip", "rule", "variables", "resources", "ports", "command"} <= set(plan)
    assert (plan["role"], plan["head_address"], plan["rule"]) == ("worker", "[fd00::9]:6379", "address is mine")
    assert plan["command"][:3] == ["ray", "start", "--address=[fd00::9]:6379"]


@pytest.fixture
def in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where vLLM is installed, on a large machine."""
    monkeypatch.setattr(registry, "check_installed", lambda info: None)
    monkeypatch.setattr(common, "installed_engines", lambda: ["vllm"])
    monkeypatch.setenv("RSCAI_NUM_CPUS", "64")


def test_a_single_node_without_the_engine_or_without_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("plan")
    assert code == 78
    assert "error: engine 'vllm' is not installed here" in out
    monkeypatch.setattr(registry, "check_installed", lambda info: None)
    monkeypatch.setattr(common, "installed_engines", lambda: ["vllm"])
    monkeypatch.setenv("RSCAI_NUM_CPUS", "0")
    code, out, _ = run("plan")
    assert code == 71
    assert "needs 1 node with 1 CPU; the cluster has 1 with none; no other node can join this one: ask for less, or start a head" in out


@pytest.mark.parametrize(("name", "value"), [("RSCAI_HOOKS_DIR", "/nowhere"), ("RSCAI_LOG_FORMAT", "yaml"), ("RSCAI_LOG_LEVEL", "loud")])
def test_a_plan_refuses_what_a_node_would(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    code, _, err = run("plan")
    assert code == 64
    assert f"{name} is {value!r}" in one_line_error(err)


@pytest.mark.usefixtures("in_an_image")
def test_a_plan_for_people(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("plan")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert (lines["role"], lines["variables"]) == ("single", "none")
    assert lines["command"].startswith("ray start --head ")
    monkeypatch.setenv("RSCAI_HEAD_ADDRESS", "far")
    assert "unknown before joining" in run("plan")[1]


@pytest.mark.usefixtures("in_an_image")
def test_a_plan_shows_what_is_served(run: Run, models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_CONFIG", models)
    said = "demo: vllm, 1 to 2 replicas of 1 rank on 1 node with 1 CPU"
    assert json.loads(run("plan", "--json")[1])["models"] == [said]
    code, out, err = run("plan")
    assert (code, err) == (0, "")
    assert f"{'models':15} {said}\n" in out


@pytest.mark.usefixtures("in_an_image")
def test_a_plan_shows_what_became_of_the_configuration(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = tmp_path / "dense"
    dense.mkdir()
    (dense / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    file = tmp_path / "copies.yaml"
    file.write_text(f"models:\n  - {{name: small, source: {dense}, engine_args: {{data_parallel_size: 3}}}}\n")
    monkeypatch.setenv("RSCAI_CONFIG", str(file))
    assert json.loads(run("plan", "--json")[1])["models"] == [
        "small: vllm, 3 replicas of 1 rank on 1 node with 1 CPU",
        "small: data_parallel_size of a dense model means copies that share nothing; it becomes 3 replicas",
    ]


@pytest.mark.parametrize(
    ("name", "content", "part", "refused"),
    [
        ("RSCAI_CONFIG", "models: [{source: demo, replica: 2}]", "models[0].replica: unknown key; did you mean replicas?", 78),
        ("RSCAI_CONFIG", "models: [{source: demo, engine: vlm}]", "did you mean vllm?", 78),
        ("RSCAI_MODEL", None, "does not exist", 66),
    ],
)
def test_a_plan_says_why_nothing_could_be_served(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, part: str, refused: int
) -> None:
    file = tmp_path / "models.yaml"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(name, str(file))
    code, out, err = run("plan", "--json")
    document = json.loads(out)
    (line,) = document["models"]
    assert code == refused
    assert err == f"ray-serve-cai: error: {document['error']}\n"
    assert line == f"error: {document['error']}"
    assert part in line
    assert f"{'models':15} {line}\n" in run("plan")[1]


def test_a_plan_of_a_worker_shows_no_models(run: Run, models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_CONFIG", models)
    monkeypatch.setenv("RSCAI_HEAD_ADDRESS", "far")
    assert "models" not in json.loads(run("plan", "--json")[1])


def test_a_plan_that_cannot_be_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_ROLE", "wrkr")
    code, out, err = run("plan")
    assert (code, out) == (64, "")
    assert "RSCAI_ROLE is 'wrkr'; use head, worker, single or auto." in one_line_error(err)
    code, out, err = run("plan", "--json")
    assert (code, json.loads(out)) == (64, {"error": "RSCAI_ROLE is 'wrkr'; use head, worker, single or auto."})
    assert one_line_error(err)


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_a_traceback_for_who_asks(run: Run, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RSCAI_ROLE", "wrkr")
    monkeypatch.setenv("RSCAI_TRACEBACK", value)
    with pytest.raises(UsageError):
        run("plan")


def plan_of(run: Run, tmp_path: Path, content: str) -> dict[str, Any]:
    file = tmp_path / "node.env"
    file.write_text(content)
    code, out, err = run("plan", "--json", "--env-file", str(file))
    assert code == 0, err
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def test_an_environment_file_replaces_the_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_ROLE", "wrkr")
    monkeypatch.setenv("RSCAI_PORT", "81")
    plan = plan_of(run, tmp_path, "# a comment\n\n  # another\nRSCAI_HEAD_ADDRESS=far:7000\nRSCAI_PORT\nRSCAI_STATUS_PORT\nX=a=b # c\n")
    assert (plan["role"], plan["head_address"]) == ("worker", "far:7000")
    assert (plan["ports"]["front_door"], plan["ports"]["status"]) == (81, 8002)


def test_values_of_an_environment_file_are_literal(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "node.env"
    file.write_text('RSCAI_ROLE="head"\n')
    code, _, err = run("plan", "--env-file", str(file))
    assert code == 64
    assert "RSCAI_ROLE is '\"head\"'" in one_line_error(err)


@pytest.mark.parametrize(
    ("content", "parts"), [("=x\n", ["line 1", "'=x'"]), ("\nexport A=b\n", ["line 2", "'export A=b'", "is no NAME=value"])]
)
def test_a_line_that_is_none(run: Run, tmp_path: Path, content: str, parts: list[str]) -> None:
    file = tmp_path / "node.env"
    file.write_text(content)
    code, _, err = run("plan", "--env-file", str(file))
    assert code == 64
    for part in [str(file), *parts]:
        assert part in one_line_error(err)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_environment_file_that_cannot_be_read(run: Run, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "node.env"
    if content is not None:
        file.write_bytes(content)
    code, _, err = run("plan", "--env-file", str(file))
    assert code == 64
    assert f"--env-file {file} cannot be read" in one_line_error(err)


@pytest.mark.parametrize("arguments", [("health",), ("health", "--live"), ("health", "--json"), ("status",)], ids=" ".join)
def test_nothing_listens(run: Run, monkeypatch: pytest.MonkeyPatch, free_port: int, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("RSCAI_STATUS_PORT", str(free_port))
    code, out, err = run(*arguments)
    assert (code, out) == (69, "")
    assert f"127.0.0.1:{free_port}" in one_line_error(err)


class Launcher:
    """The status server's answers; each question about readiness moves it one step on."""

    models = ({"name": "demo", "engine": "vllm", "ready": True, "state": "ready", "replicas": 1, "error": ""},)

    def __init__(self) -> None:
        self.steps: list[str | None] = ["loading weights", "loading weights", "warming up", "ready"]

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == "/health":
            shown = {"role": "head", "phase": "ready", "phase_detail": "all", "models": list(self.models)}
            return 200, shown | {"nodes": {"alive": 2, "expected": 2, "refused": {"10.0.0.9": "no model"}}}
        phase = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if phase is None:
            raise UnavailableError("no launcher answers.")
        return 200 if phase == "ready" else 503, {"ready": phase == "ready", "phase": phase, "detail": "demo"}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    made = Launcher()
    monkeypatch.setattr(health, "ask", made.ask)
    monkeypatch.setattr(watching, "POLL_S", 0)
    return made


@pytest.mark.parametrize(
    ("phase", "arguments", "code", "out"),
    [
        ("ready", [], 0, "ready: demo\n"),
        ("warming up", [], 69, "warming up: demo\n"),
        ("warming up", ["--live"], 0, "head: ready: all\n"),
        ("warming up", ["--json"], 69, '{"ready": false, "phase": "warming up", "detail": "demo"}\n'),
    ],
)
def test_health(run: Run, launcher: Launcher, phase: str, arguments: list[str], code: int, out: str) -> None:
    launcher.steps = [phase]
    assert run("health", *arguments) == (code, out, "")


def test_status(run: Run, launcher: Launcher) -> None:
    code, out, _ = run("status")
    assert code == 0
    assert out.splitlines() == ["loading weights: demo", "model demo: ready, vllm, 1 replica", "nodes: 2 alive, at least 2 wanted", "refused: 10.0.0.9: no model"]


def test_status_as_json(run: Run, launcher: Launcher) -> None:
    code, out, _ = run("status", "--json")
    assert code == 0
    assert json.loads(out)["nodes"] == {"alive": 2, "expected": 2, "refused": {"10.0.0.9": "no model"}}


def test_waiting_shows_each_phase_once(run: Run, launcher: Launcher) -> None:
    launcher.steps = [None, None, *launcher.steps]
    code, out, _ = run("status", "--wait")
    assert code == 0
    assert out.splitlines()[:4] == ["no launcher answers.", "loading weights: demo", "warming up: demo", "ready: demo"]


def test_waiting_has_an_end(run: Run, launcher: Launcher) -> None:
    launcher.steps = ["loading weights"]
    code, _, err = run("status", "--wait", "--timeout", "0")
    assert code == 69
    assert "not ready after 0 s; last seen: loading weights: demo." in one_line_error(err)


class Head:
    """The serving process, as `deploy` meets it: it says its answers one after the other, at each poll."""

    def __init__(self, directory: Path) -> None:
        self.box = Mailbox(directory)
        self.asked: Request | None = None
        self.answers: list[dict[str, Any]] = [{"state": "done", "plan": {"demo": "unchanged"}}]

    def poll(self, seconds: float) -> None:
        self.asked = self.box.take() or self.asked
        if self.asked and self.answers:
            self.box.answer(Answer(self.asked.id, **self.answers.pop(0)))


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Head:
    made = Head(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setenv("RSCAI_STATE_FILE", str(tmp_path / "state.json"))
    monkeypatch.setattr(mailbox.time, "sleep", made.poll)
    return made


@pytest.fixture
def models(tmp_path: Path) -> str:
    file = tmp_path / "models.yaml"
    file.write_text("models:\n  - source: demo\n    autoscaling: {max: 2}\n    engine_args: {dtype: float32}\n")
    return str(file)


def test_an_update_shows_each_line_once(run: Run, head: Head, models: str) -> None:
    plan = {"demo": "all new replicas start before old ones end"}
    under_way = {"state": "under way", "plan": plan}
    head.answers = [
        under_way,
        under_way | {"detail": "demo: 0 of 1"},
        under_way | {"detail": "demo: 1 of 1"},
        {"state": "done", "plan": plan},
    ]
    assert run("deploy", "--config", models) == (0, f"demo: {plan['demo']}\ndemo: 0 of 1\ndemo: 1 of 1\ndone\n", "")
    assert head.asked is not None
    assert head.asked.config == {
        "models": [{"name": "demo", "source": "demo", "autoscaling": {"max": 2}, "engine_args": {"dtype": "float32"}}]
    }
    assert (head.asked.allow_downtime, head.asked.dry_run) == (False, False)


def test_a_plan_of_an_update(run: Run, head: Head, models: str) -> None:
    head.answers = [{"state": "planned", "plan": {"demo": "unchanged"}}]
    assert run("deploy", "--config", models, "--dry-run", "--allow-downtime") == (0, "demo: unchanged\n", "")
    assert head.asked is not None
    assert (head.asked.allow_downtime, head.asked.dry_run) == (True, True)


@pytest.mark.parametrize("state", ["done", "planned"])
def test_an_update_as_json(run: Run, head: Head, models: str, state: str) -> None:
    head.answers = [{"state": "under way", "plan": {"demo": "x"}, "detail": "d"}, {"state": state, "plan": {"demo": "x"}}]
    code, out, err = run("deploy", "--config", models, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"state": state, "plan": {"demo": "x"}, "error": ""}


@pytest.mark.parametrize(
    ("error_type", "code"), [("ResourceError", 71), ("ConfigError", 78), ("EngineError", 70), ("ModelNotFoundError", 66)]
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_update_that_fails(run: Run, head: Head, models: str, error_type: str, code: int, options: list[str]) -> None:
    head.answers = [{"state": "failed", "error": "the fact; the fix.", "error_type": error_type}]
    left, out, err = run("deploy", "--config", models, *options)
    assert (left, one_line_error(err)) == (code, "ray-serve-cai: error: the fact; the fix.\n")
    assert (json.loads(out) == {"state": "failed", "plan": {}, "error": "the fact; the fix."}) if options else (out == "")


def test_an_update_that_takes_too_long(run: Run, head: Head, models: str) -> None:
    head.answers = []
    code, out, err = run("deploy", "--config", models, "--timeout", "0")
    assert (code, out) == (69, "")
    assert "not done after 0 s; last seen: the serving process has not looked at it, and it was taken back." in one_line_error(err)


def test_an_update_from_standard_input(head: Head, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ray_serve_cai.cli", "deploy", "--config", "-", "--timeout", "0"]
    env = {"RSCAI_STATE_FILE": str(tmp_path / "state.json"), "PATH": os.environ["PATH"]}
    for text, code, said in (("models: [{source: demo}]", 69, "not done after 0 s"), ("models: []", 78, "standard input: models: []")):
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30, env=env)
        assert done.returncode == code
        assert said in one_line_error(done.stderr)


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "cannot be read"), ("models: [", "not YAML"), ("models: [{source: demo, replica: 2}]", "models[0].replica: unknown key")],
)
def test_an_update_to_a_wrong_configuration(run: Run, head: Head, tmp_path: Path, content: str | None, part: str) -> None:
    file = tmp_path / "wrong.yaml"
    if content is not None:
        file.write_text(content)
    code, out, err = run("deploy", "--config", str(file))
    assert (code, out, head.asked) == (78, "", None)
    assert f"{file}: {part}" in one_line_error(err)


def test_an_update_where_nothing_is_served(run: Run, models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_STATE_FILE", str(tmp_path / "no" / "state.json"))
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    code, out, err = run("deploy", "--config", models)
    assert (code, out) == (69, "")
    assert "no configuration is served by this node; run this on the head, once it serves." in one_line_error(err)


def test_engines_as_json(run: Run) -> None:
    code, out, _ = run("engines", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows["vllm"]) == {"name", "description", "from", "installed", "install", "default", "error"}
    assert rows["vllm"]["from"] == "ray-serve-cai"
    assert rows["vllm"]["default"] is True


def test_engines_for_people(run: Run) -> None:
    code, out, _ = run("engines")
    assert code == 0
    (line,) = (line for line in out.splitlines() if line.startswith("vllm "))
    assert "server (built in; " in line
    assert line.endswith(") [default]")


@pytest.fixture
def broken_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry as a process has it where one distribution brings an engine that cannot be loaded."""
    point = EntryPoint("bad", "no_such_module:BAD", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    monkeypatch.setattr(registry, "get_registry", registry.get_registry.__wrapped__)


@pytest.mark.usefixtures("broken_plugin")
def test_an_engine_that_cannot_be_loaded_is_listed_with_the_reason(run: Run) -> None:
    code, out, _ = run("engines")
    assert code == 0
    assert "bad          broken: ModuleNotFoundError: No module named 'no_such_module' (from an unknown distribution)\n" in out
    rows = {row["name"]: row for row in json.loads(run("engines", "--json")[1])}
    assert rows["bad"]["error"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert rows["bad"]["installed"] is None
    assert rows["vllm"]["error"] == ""


@pytest.mark.usefixtures("broken_plugin", "in_an_image")
def test_an_engine_that_cannot_be_loaded_spoils_no_plan(run: Run) -> None:
    assert run("plan")[0] == 0


def test_a_log_level_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCAI_LOG_LEVEL", "loud")
    code, _, err = run("node")
    assert code == 64
    assert "RSCAI_LOG_LEVEL is 'loud'; use debug, info, warning or error." in one_line_error(err)


def test_an_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(health, "ask", interrupted)
    assert run("health")[0] == 130


@pytest.mark.parametrize(
    ("env", "arguments", "code", "part"),
    [
        ({"RSCAI_ROLE": "wrkr"}, ["node"], 64, "RSCAI_ROLE is 'wrkr'"),
        ({"RSCAI_CONFIG": "/no/such.yaml"}, ["node"], 78, "/no/such.yaml: cannot be read"),
        ({"RSCAI_ENGINE": "vlm"}, ["node"], 78, "did you mean vllm?"),
        ({"RSCAI_ENGINE": "sglang"}, ["node"], 78, "'sglang' is not installed here; use an image that has it"),
        ({"RSCAI_MODEL": "/no/such/model"}, ["node"], 66, "'/no/such/model' does not exist"),
        ({}, ["serve", "--config", "/no/such.yaml"], 78, "/no/such.yaml: cannot be read"),
    ],
)
@pytest.mark.usefixtures("root_logger")
def test_a_node_that_cannot_begin_leaves_with_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], arguments: list[str], code: int, part: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    left, out, err = run(*arguments)
    assert (left, out) == (code, "")
    assert part in one_line_error(err)


def test_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "ray_serve_cai.cli", "plan", "x"], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 64
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early() -> None:
    line = f"{sys.executable} -m ray_serve_cai.cli plan --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=30)
    assert "Traceback" not in done.stderr
    assert done.stdout == "0\n"


def test_an_update_is_cancelled_without_a_configuration(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent = []

    def follow(box: object, request: object, timeout_s: float) -> Iterator[object]:
        sent.append(request)
        yield mailbox.Answer("1", mailbox.DONE)

    (tmp_path / "state.json").touch()
    monkeypatch.setenv("RSCAI_STATE_FILE", str(tmp_path / "state.json"))
    monkeypatch.setattr(mailbox.Mailbox, "follow", follow)
    assert run("deploy", "--cancel")[:2] == (0, "done\n")
    assert (sent[0].config, sent[0].cancel) == ({}, True)
    assert run("deploy", "--cancel", "--config", "x.yaml")[0] == 64
