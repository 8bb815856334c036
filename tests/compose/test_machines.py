"""One machine each: compose/head.yaml and compose/worker.yaml on the host's network, with their overlays."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers import IMAGE, Api, free_port, run
from tests.machines import TOKEN, Machine, answers, docker_network, joined, limits

pytestmark = pytest.mark.issue(6)
OVERLAYS = ("gpu", "rdma", "tls", "airgapped", "cache")
DIRECT = {"RSCAI_TOKEN": TOKEN, "HEAD_ADDRESS": "10.0.0.1", "TLS_DIR": "/tmp", "HF_CACHE": "/tmp"}


def config(*files: str, without: str = "") -> tuple[int, str]:
    """Exit code and errors of `docker compose config`."""
    words = [word for file in files for word in ("-f", f"compose/{file}.yaml")]
    env = {name: value for name, value in (os.environ | DIRECT).items() if name != without}
    done = run("docker", "compose", "--env-file", "/dev/null", *words, "config", "--quiet", check=False, env=env)
    return done.returncode, done.stderr


@pytest.mark.parametrize("file", ["head", "worker"])
def test_the_files_fit_together(file: str) -> None:
    """Every set of overlays."""
    for count in range(len(OVERLAYS) + 1):
        for overlays in itertools.combinations(OVERLAYS, count):
            assert config(file, *overlays) == (0, "")


@pytest.mark.issue(7)
@pytest.mark.parametrize("file", ["head", "worker"])
@pytest.mark.parametrize(("engine", "image"), [("", "ray-serve-cai:vllm-cuda"), ("sglang", "ray-serve-cai:sglang-cuda")])
def test_gpus_shared_memory_and_limits_in_the_merged_file(file: str, engine: str, image: str) -> None:
    words = ("--env-file", "/dev/null", "-f", f"compose/{file}.yaml", "-f", "compose/gpu.yaml", "config", "--format", "json")
    env = {name: value for name, value in os.environ.items() if name not in ("IMAGE", "SHM_SIZE", "MEMLOCK")} | DIRECT | {"ENGINE": engine}
    node = json.loads(run("docker", "compose", *words, env=env).stdout)["services"]["node"]
    (device,) = node["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", -1, ["gpu"])
    assert (node["image"], node["network_mode"], int(node["shm_size"])) == (image, "host", 16 << 30)
    assert node["ulimits"] == {"memlock": -1, "nofile": 1048576, "stack": 64 << 20}


@pytest.mark.issue(7)
@pytest.mark.parametrize("left_behind", ["ray-serve-cai:vllm-cpu", ""])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_one_machine_with_gpus_in_the_merged_file(engine: str, left_behind: str, tmp_path: Path) -> None:
    """Also after `make up`, whose choices stand in an .env file."""
    choices = tmp_path / "env"
    choices.write_text(f"IMAGE={left_behind}\nMIN_NODES=3\nWORKERS=2\nMODEL=demo\n")
    words = ("--env-file", str(choices), "-f", "compose/cpu.yaml", "-f", "compose/cuda.yaml", "config", "--format", "json")
    names = ("IMAGE", "SHM_SIZE", "MEMLOCK", "NOFILE", "MIN_NODES", "WORKERS")
    env = {name: value for name, value in os.environ.items() if name not in names} | {"ENGINE": engine}
    services = json.loads(run("docker", "compose", *words, env=env).stdout)["services"]
    head = services["head"]
    (device,) = head["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", -1, ["gpu"])
    assert (head["image"], int(head["shm_size"])) == (f"ray-serve-cai:{engine}-cuda", 16 << 30)
    assert head["ulimits"] == {"memlock": -1, "nofile": 1048576, "stack": 64 << 20}
    assert head["build"]["args"] == {"DEVICE": "cuda", "ENGINE": engine, "EXTRA_INDEX_URL": "", "IMAGE": f"{engine}-cuda"}
    assert (head["environment"]["RSCAI_ROLE"], head["environment"]["RSCAI_MIN_NODES"]) == ("head", "1")
    assert head["ports"][0]["host_ip"] == "127.0.0.1"
    assert services["worker"]["deploy"]["replicas"] == 0


@pytest.mark.parametrize("files", [("head", "models"), ("cpu", "airgapped-cpu"), ("cpu", "cuda", "config")])
def test_other_files_fit_together(files: tuple[str, ...]) -> None:
    assert config(*files) == (0, "")


@pytest.mark.parametrize(
    ("files", "name", "fix"),
    [
        (("head",), "RSCAI_TOKEN", "make one with `openssl rand -hex 24` and give all nodes the same"),
        (("worker",), "RSCAI_TOKEN", "make one with `openssl rand -hex 24` and give all nodes the same"),
        (("worker",), "HEAD_ADDRESS", "name the machine of head.yaml, for example HEAD_ADDRESS=10.0.0.1"),
        (("worker", "cache"), "HF_CACHE", "name a directory that all machines mount, writable for uid 1000 or group 0"),
        (("head", "tls"), "TLS_DIR", "name the directory with this node's tls.crt and tls.key, and with ca.crt"),
    ],
)
def test_what_is_missing_is_named_with_its_fix(files: tuple[str, ...], name: str, fix: str) -> None:
    code, said = config(*files, without=name)
    assert code != 0
    assert said.strip().endswith(f"required variable {name} is missing a value: it is not set; {fix}")


@pytest.fixture(scope="module")
def gateway() -> str:
    """This machine's address in Docker's default network, as other machines would have one of it."""
    return run("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()


@pytest.mark.full
def test_a_head_on_the_hosts_network_and_a_worker_on_another(gateway: str, questions: dict[str, str]) -> None:
    port, serve, status, gcs = (free_port() for _ in range(4))
    ports = {"RSCAI_SERVE_PORT": str(serve), "RSCAI_STATUS_PORT": str(status)}
    shared = {"HEAD_ADDRESS": f"{gateway}:{gcs}", **ports}
    with (
        Machine("head", RSCAI_PORT=str(port), **shared) as head,
        Machine("worker", network="bridge", **shared) as worker,
    ):
        joined(worker)
        answers(Api(port), questions)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{gateway}:{port}/health")  # BIND is 127.0.0.1
        assert Api(port).health()["nodes"]["alive"] == 2
        said = head.exec("sh", "-c", "grep -E 'CapBnd|NoNewPrivs' /proc/self/status; ulimit -l; ulimit -n").stdout
        most = ["64", "17000"] if limits() else ["unlimited", "1048576"]
        assert re.findall(r"\S+$", said, re.MULTILINE) == ["0000000000000000", "1", *most]
        took = together(head, worker)
        print(f"down of head and worker, idle: {took:.1f} s")
        assert took < 20


def together(*machines: Machine) -> float:
    """Seconds until all have come down, told at the same time."""
    start = time.monotonic()
    threads = [threading.Thread(target=machine.compose, args=("down",)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - start


@pytest.fixture
def two_nodes_without_ipv4() -> Iterator[tuple[str, str]]:
    """Ids of two containers in a network where they have IPv6 alone; nodes take their place there.

    Docker before 27 gives each container of a network IPv4, too: that address is taken away.
    """
    with docker_network("--ipv6", "--subnet", "fd00:5ca1:ab1e::/64") as network:
        made = [holder(network) for _ in range(2)]
        try:
            for one in made:
                process = run("docker", "inspect", "--format", "{{.State.Pid}}", one).stdout.strip()
                run("nsenter", "--target", process, "--net", "ip", "-4", "address", "flush", "dev", "eth0")
            yield made[0], made[1]
        finally:
            run("docker", "rm", "--force", "--volumes", *made)


def holder(network: str) -> str:
    """A container that does nothing but have an address."""
    return run("docker", "run", "--detach", "--network", network, "--entrypoint", "sleep", IMAGE, "infinity").stdout.strip()


@pytest.mark.full
def test_ipv6_alone(two_nodes_without_ipv4: tuple[str, str], questions: dict[str, str]) -> None:
    first, second = two_nodes_without_ipv4
    address = run("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}", first).stdout.strip()
    with (
        Machine("head", network=f"container:{first}", BIND="::"),
        Machine("worker", network=f"container:{second}", HEAD_ADDRESS=address) as worker,
    ):
        joined(worker)
        api = Api(8000, host=f"[{address}]")
        answers(api, questions)
        assert f"joining the head at [{address}]:6379 as fd00:5ca1:ab1e::" in worker.logs()
        assert "nothing keeps this node from serving" in worker.exec("ray-serve-cai", "doctor").stdout
        run("docker", "stop", "--time", "90", worker.id)
        assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", worker.id).stdout.strip() == "0"
        assert "did not take the drain request" not in worker.logs()
        answers(api, questions)
