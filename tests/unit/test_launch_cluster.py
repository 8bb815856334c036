"""What `launch_cluster` would start, from a file and this machine; that it starts it is tested in the image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai import launch_cluster
from ray_serve_cai.config import ClusterConfig
from ray_serve_cai.node.machine import Machine

Make = Callable[..., Machine]
Run = Callable[..., tuple[int, str, str]]


def cluster(**fields: Any) -> ClusterConfig:
    return ClusterConfig.model_validate(fields)


def line_of(given: ClusterConfig, here: Machine, env: dict[str, str] | None = None) -> list[str]:
    return launch_cluster.ray_start(given, launch_cluster.planned(given, here, env or {}), ["echo", "vllm"])


def test_an_empty_file_is_a_node_of_ours_in_the_background(make_machine: Make) -> None:
    line = line_of(cluster(), make_machine())
    expected = ["ray", "start", "--head", "--port=6379", "--include-dashboard=true", "--dashboard-host=127.0.0.1", "--dashboard-port=8265"]
    assert line[: len(expected)] == expected
    assert "--labels=rscai/role=head,rscai/engine.echo=true,rscai/engine.vllm=true" in line
    assert "--num-cpus=4" in line
    assert "--block" not in line


def test_the_file_decides(make_machine: Make) -> None:
    given = cluster(
        port=7000,
        block=True,
        dashboard={"enabled": False, "port": 9000},
        resources={"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20},
    )
    line = line_of(given, make_machine(), {"RSCAI_NUM_CPUS": "3"})
    for word in (
        "--port=7000",
        "--include-dashboard=false",
        "--dashboard-port=9000",
        "--num-cpus=2",
        "--num-gpus=1",
        "--object-store-memory=104857600",
        "--block",
    ):
        assert word in line


def test_a_variable_counts_where_the_file_says_nothing(make_machine: Make) -> None:
    env = {"RSCAI_NUM_CPUS": "3", "RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "far"}
    line = line_of(cluster(), make_machine(), env)
    assert "--num-cpus=3" in line
    assert "--head" in line


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root_logger: object) -> Run:
    """Exit code, stdout and stderr of a command, on a machine where no cluster runs."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))

    def ran(*arguments: str) -> tuple[int, str, str]:
        try:
            code = launch_cluster.main(arguments)
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return ran


def test_stopping_nothing_is_no_error(run: Run) -> None:
    assert run("stop") == (0, "status     not running\n", "")
    assert json.loads(run("--json", "stop")[1]) == {"status": "not running"}


@pytest.mark.parametrize("command", ["status", "get-address"])
def test_no_cluster_runs(run: Run, command: str) -> None:
    code, out, err = run(command)
    assert (code, out) == (69, "")
    assert err == "ray-serve-cai: error: no Ray cluster runs on this machine; start one: python -m ray_serve_cai.launch_cluster start\n"


def test_the_address_of_the_cluster_that_runs(run: Run, tmp_path: Path, taken_port: int) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{taken_port}")
    assert run("get-address") == (0, f"127.0.0.1:{taken_port}\n", "")


def test_a_port_where_something_listens(run: Run, tmp_path: Path, taken_port: int) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"cluster: {{port: {taken_port}}}")
    code, _, err = run("--config", str(file), "start")
    assert code == 71
    assert f":{taken_port} already; stop it with" in err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["start-autoscaler"], 64, "start-autoscaler needs --config"),
        (["--config", "{file}", "start-autoscaler"], 78, "has no `provider` section"),
        (["--config", "/no/such.yaml", "start"], 78, "/no/such.yaml: cannot be read"),
    ],
)
def test_a_file_that_is_wrong(run: Run, tmp_path: Path, arguments: list[str], code: int, part: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster: {}")
    left, out, err = run(*(word.format(file=file) for word in arguments))
    assert (left, out) == (code, "")
    assert err.startswith("ray-serve-cai: error: ")
    assert part in err


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n  {name} " in out for name in launch_cluster.COMMANDS)


@pytest.mark.parametrize(
    ("line", "error", "part"),
    [
        (["/no/such/ray", "start"], "EngineError", "/no/such/ray is not installed here"),
        (["bash", "-c", "echo one; echo two >&2; exit 3"], "EngineError", "bash -c failed with exit code 3: one two"),
        (["sleep", "9"], "UnavailableError", "sleep 9 did not end within 0 s"),
    ],
)
def test_rays_own_command_fails(line: list[str], error: str, part: str) -> None:
    with pytest.raises(launch_cluster.RayServeCaiError) as caught:
        launch_cluster._run(line, {"PATH": "/bin:/usr/bin"}, 0.3, shown=False)
    assert type(caught.value).__name__ == error
    assert part in str(caught.value)
