"""``python -m ray_serve_cai.launch_cluster`` in the image, and a `RayBackend` that finds the cluster it started."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.containers import IMAGE, ROOT, run

pytestmark = [pytest.mark.issue(3), pytest.mark.full]
COMMAND = ("python3", "-m", "ray_serve_cai.launch_cluster")
FIND = """
import asyncio, json
from ray_serve_cai import ray_backend
async def main():
    found = await ray_backend.initialize_ray()
    await ray_backend.shutdown()
    print(json.dumps(found))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the image that does nothing by itself."""
    options = ("--detach", "--rm", "--init", "--shm-size", "1g", "--volume", f"{ROOT}/configs:/configs:ro", "--entrypoint", "sleep")
    name = run("docker", "run", *options, IMAGE, "600").stdout.strip()
    yield name
    run("docker", "rm", "--force", name)


def call(container: str, *words: str, env: tuple[str, ...] = ()) -> tuple[int, str, str]:
    done = run("docker", "exec", *env, container, *words, check=False, timeout=180)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_a_clusters_life(container: str) -> None:
    cluster = (*COMMAND, "--config", "/configs/local_cpu.yaml")
    for word in ("status", "get-address"):
        code, _, said = call(container, *COMMAND, word)
        assert (code, "no Ray cluster runs" in said) == (69, True)
    code, said, error = call(container, *cluster, "--json", "start")
    assert code == 0, error
    address = json.loads(said)["address"]
    assert address.endswith(":6379")
    assert call(container, *cluster, "start")[0] == 71
    assert call(container, *COMMAND, "get-address")[:2] == (0, address)
    code, said, error = call(container, *COMMAND, "--json", "status")
    assert code == 0, error
    state = json.loads(said)
    assert (state["address"], state["nodes"], state["GPU"]) == (address, 1, 0)
    # A process of the same user finds it, by itself and by RAY_ADDRESS; its token authentication needs no setting.
    for env in ((), ("-e", f"RAY_ADDRESS={address}")):
        code, said, error = call(container, "python3", "-c", FIND, env=env)
        assert code == 0, error
        found = json.loads(said.splitlines()[-1])
        assert (found["mode"], found["address"]) == ("connected", address)
    assert call(container, *COMMAND, "stop")[0] == 0
    assert call(container, *COMMAND, "get-address")[0] == 69
    assert call(container, *COMMAND, "stop")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("--config", "/none.yaml", "start"), 78, "/none.yaml: cannot be read"),
        (("start-autoscaler",), 64, "needs --config"),
        (("--config", "/configs/local_cpu.yaml", "start-autoscaler"), 78, "has no `provider` section"),
        (("begin",), 2, "invalid choice"),
    ],
)
def test_bad_input(container: str, words: tuple[str, ...], code: int, error: str) -> None:
    done = call(container, *COMMAND, *words)
    assert done[0] == code
    assert error in done[2]
