"""The supervisor's pure parts; its life is tested on the real image."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_serve_cai.errors import RayServeCaiError, ResourceError
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.supervisor import ChildFailed, child_environment, writable

Plan = Callable[..., NodePlan]


def test_children_see_the_environment_without_the_token(make_plan: Plan) -> None:
    env = {"PATH": "/bin", "RSCAI_TOKEN": "secret", "RAY_AUTH_TOKEN": "secret", "HF_TOKEN": "hf"}
    child = child_environment(env, make_plan())
    assert "secret" not in child.values()
    assert (child["PATH"], child["HF_TOKEN"]) == ("/bin", "hf")


def test_what_holds_on_every_node_wins(make_plan: Plan) -> None:
    child = child_environment({"RAY_SERVE_ENABLE_HA_PROXY": "0"}, make_plan())
    assert (child["RAY_SERVE_ENABLE_HA_PROXY"], child["RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"]) == ("1", "0")


@pytest.mark.parametrize(("drain", "hard_stop"), [("0", 120), ("500", 500)])
def test_rays_proxy_lives_as_long_as_the_drain(make_plan: Plan, drain: str, hard_stop: int) -> None:
    assert int(child_environment({}, make_plan({"RSCAI_DRAIN_S": drain}))["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) >= hard_stop


def test_the_first_writable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable(tmp_path / "file" / "below", tmp_path / "new" / "one", tmp_path) == tmp_path / "new" / "one"
    assert (tmp_path / "new" / "one").is_dir()


def test_a_directory_of_somebody_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert writable(tmp_path, tmp_path / "mine") == tmp_path / "mine"


def test_no_writable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=rf"none of {tmp_path}/file/a, {tmp_path}/file/b is writable; mount a tmpfs"):
        writable(tmp_path / "file" / "a", tmp_path / "file" / "b")


def test_the_launcher_leaves_with_its_childs_code() -> None:
    error: RayServeCaiError = ChildFailed(71, "why")
    assert (error.exit_code, str(error)) == (71, "why")
    assert RayServeCaiError.exit_code == 70
