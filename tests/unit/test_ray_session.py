"""Which cluster a process connects to, and with whose token. Connecting itself is tested on real clusters."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_serve_cai import ray_session
from ray_serve_cai.errors import RayServeCaiError, UnavailableError, UsageError
from ray_serve_cai.node.machine import Machine


def cluster_file(folder: Path, content: str) -> dict[str, str]:
    """Ray's note of the cluster that was started last, and the environment that leads to it."""
    (folder / "ray").mkdir()
    (folder / "ray/ray_current_cluster").write_text(content)
    return {"RAY_TMPDIR": str(folder)}


def nothing(folder: Path) -> dict[str, str]:
    return {"RAY_TMPDIR": str(folder)}


def test_no_cluster_runs_here(tmp_path: Path) -> None:
    assert ray_session.running(nothing(tmp_path)) is None
    assert ray_session.latest_cluster(nothing(tmp_path)) is None


def test_the_cluster_that_runs_here(tmp_path: Path, taken_port: int) -> None:
    env = cluster_file(tmp_path, f"127.0.0.1:{taken_port}\n")
    assert ray_session.running(env) == f"127.0.0.1:{taken_port}"
    assert ray_session.running(env | {"RAY_ADDRESS": "auto"}) == f"127.0.0.1:{taken_port}"
    assert ray_session.running(env | {"RAY_ADDRESS": "local"}) is None
    assert ray_session.running(env, "local") is None


@pytest.mark.parametrize("content", ["", "127.0.0.1:{port}"])
def test_a_cluster_that_ran_here(tmp_path: Path, free_port: int, content: str) -> None:
    env = cluster_file(tmp_path, content.format(port=free_port))
    assert ray_session.running(env) is None
    with pytest.raises(UnavailableError, match="no Ray cluster runs on this machine"):
        ray_session.running(env, "auto")


@pytest.mark.parametrize(("variable", "argument"), [("", "{taken}"), ("{taken}", ""), ("{free}", "{taken}"), ("auto", "{taken}")])
def test_an_address_that_is_given(tmp_path: Path, taken_port: int, free_port: int, variable: str, argument: str) -> None:
    taken, free = f"127.0.0.1:{taken_port}", f"127.0.0.1:{free_port}"
    env = nothing(tmp_path) | {"RAY_ADDRESS": variable.format(taken=taken, free=free)}
    assert ray_session.running(env, argument.format(taken=taken) or None) == taken


def test_nothing_answers_at_an_address_that_is_given(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(UnavailableError, match=f"no Ray cluster answers at 127.0.0.1:{free_port}; start one there"):
        ray_session.running(nothing(tmp_path), f"127.0.0.1:{free_port}")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("ray://10.0.0.5:10001", "Ray address 'ray://10.0.0.5:10001' is Ray Client's, which Serve cannot use"),
        ("10.0.0.5:port", "RAY_ADDRESS"),
    ],
)
def test_an_address_that_is_none(given: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        ray_session.running({"RAY_ADDRESS": given})


def test_a_variable_that_gives_a_role_is_left_out() -> None:
    env = {"RSCAI_NUM_CPUS": "2", "RSCAI_HEAD_ADDRESS": "far", "RSCAI_ROLE": "worker", "PATH": "/bin"}
    assert ray_session.own_variables(env) == {"RSCAI_NUM_CPUS": "2"}


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The launcher's token file and this user's; neither is there yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray_session, "LAUNCHER_TOKEN", tmp_path / "launcher")
    return tmp_path / "launcher", tmp_path / ".ray" / "auth_token"


Make = Callable[..., Machine]


def test_the_launchers_token_comes_before_the_users(tokens: tuple[Path, Path], make_machine: Make) -> None:
    env: dict[str, str] = {}
    ray_session.use_own_token(env, "10.0.0.5:6379", make_machine())
    assert env == {}
    assert ray_session.ensure_token() == tokens[1]
    ray_session.use_own_token(env, "10.0.0.5:6379", make_machine())
    assert env == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tokens[1])}
    tokens[0].write_text("t")
    env = {}
    ray_session.use_own_token(env, "10.0.0.5:6379", make_machine())
    assert env["RAY_AUTH_TOKEN_PATH"] == str(tokens[0])


@pytest.mark.parametrize(("env", "where"), [({}, "192.0.2.7:6379"), ({"RAY_AUTH_MODE": "disabled"}, "10.0.0.5:6379")])
def test_a_token_goes_to_no_other_machine_and_nowhere_unasked(
    tokens: tuple[Path, Path], make_machine: Make, env: dict[str, str], where: str
) -> None:
    tokens[0].write_text("t")
    before = dict(env)
    ray_session.use_own_token(env, where, make_machine())
    assert env == before


def test_a_made_token_is_this_users_alone_and_kept(tokens: tuple[Path, Path]) -> None:
    made = ray_session.ensure_token()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert len(made.read_text()) == 48
    before = made.read_text()
    assert ray_session.ensure_token().read_text() == before


def test_a_home_that_takes_no_file(tokens: tuple[Path, Path]) -> None:
    tokens[1].parent.write_text("no directory")
    with pytest.raises(RayServeCaiError, match=r"auth_token cannot be written .*; set HOME"):
        ray_session.ensure_token()
