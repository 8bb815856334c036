"""The same image under the variables of different schedulers: two containers find each other and serve, with nothing else said."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.containers import IMAGE, Api, free_port, run, until

pytestmark = pytest.mark.issue(6)
HEAD = "job-0.job.team"
TOKEN = "0123456789abcdef0123456789abcdef"
COMMAND = "ray start --{0} --num-cpus=1 --num-gpus=0 --block "
SCHEDULERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    # the first container's variables, and the second's
    "PyTorchJob": (
        {"MASTER_ADDR": HEAD, "MASTER_PORT": "23456", "WORLD_SIZE": "2", "RANK": "0"},
        {"MASTER_ADDR": HEAD, "MASTER_PORT": "23456", "WORLD_SIZE": "2", "RANK": "1"},
    ),
    "LeaderWorkerSet": (
        {"LWS_LEADER_ADDRESS": HEAD, "LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "0"},
        {"LWS_LEADER_ADDRESS": HEAD, "LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1"},
    ),
    "KubeRay": (
        {
            "RAY_NODE_TYPE_NAME": "headgroup", "RAY_ADDRESS": "127.0.0.1:6379", "RAY_PORT": "6379", "EXPECTED_NODES": "2",
            "KUBERAY_GEN_RAY_START_CMD": COMMAND.format("head"), "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        },
        {
            "RAY_NODE_TYPE_NAME": "workers", "FQ_RAY_IP": HEAD, "RAY_IP": "job-0", "RAY_PORT": "6379", "RAY_ADDRESS": f"{HEAD}:6379",
            "KUBERAY_GEN_RAY_START_CMD": COMMAND.format(f"address={HEAD}:6379"), "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        },
    ),
    "Slurm": (
        {"SLURM_JOB_ID": "7", "SLURM_NODEID": "0", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "job-[0-1]", "SLURM_LOCALID": "0"},
        {"SLURM_JOB_ID": "7", "SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "job-[0-1]", "SLURM_LOCALID": "0"},
    ),
    "torchrun": (
        {"MASTER_ADDR": HEAD, "GROUP_RANK": "0", "LOCAL_RANK": "0", "RANK": "0", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"},
        {"MASTER_ADDR": HEAD, "GROUP_RANK": "1", "LOCAL_RANK": "0", "RANK": "4", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"},
    ),
}  # fmt: skip


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.full] if name != "PyTorchJob" else []) for name in SCHEDULERS])
def job(request: pytest.FixtureRequest) -> Iterator[Api]:
    """Two containers of a job, the second named ``job-1``; both are given a token, as a scheduler's secret would."""
    name, port = f"rscai-test-{uuid.uuid4().hex[:8]}", free_port()
    run("docker", "network", "create", name)
    started = []
    try:
        for number, variables in enumerate(SCHEDULERS[request.param]):
            aliases = ("--network", name, "--network-alias", f"job-{number}.job.team", "--network-alias", f"job-{number}")
            given = [word for key, value in (variables | {"RSCAI_TOKEN": TOKEN}).items() for word in ("-e", f"{key}={value}")]
            published = ("--publish", f"127.0.0.1:{port}:8000") if number == 0 else ()
            started.append(run("docker", "run", "--detach", "--shm-size", "1g", *aliases, *given, *published, IMAGE).stdout.strip())
        yield Api(port)
    except BaseException:
        for container in started:
            print(run("docker", "logs", "--tail", "60", container, check=False))
        raise
    finally:
        run("docker", "rm", "--force", "--volumes", *started, check=False)
        run("docker", "network", "rm", name, check=False)


def test_two_containers_of_a_job_serve(job: Api, questions: dict[str, str]) -> None:
    job.wait_ready()
    assert job.health()["nodes"] == {"alive": 2, "expected": 2, "refused": {}}
    question = next(iter(questions))
    assert job.ask(question) == questions[question]
    until("still ready", job.is_ready, 10)
