"""The servers as containers of one image: who is started how, when each is ready, what CPU it uses, and freezing the idle ones.

All servers get the same engine arguments, said out loud to each of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.containers import IMAGE, ROOT, run, until

MODEL = "demo"
MODEL_PATH = "/opt/ray-serve-cai/models/demo"
ENGINE_ARGUMENTS: dict[str, Any] = {
    "distributed_executor_backend": "uni",
    "dtype": "bfloat16",
    "enforce_eager": True,
    "max_model_len": 2048,
}
"""vLLM's arguments. They are what this project gives a model of one rank on a CPU; one rank runs in the engine's own process."""
READY_S = 300
FREEZE_S = 60
QUIET_CORES = 0.4
LOOK_S = 0.5
RAY_LLM_IMAGE = "ray-serve-cai:bench-ray-llm"
RAY_LLM_PACKAGES = "build/bench/ray-llm-packages"
HERE = Path(__file__).resolve().parent
THREADS = {"OMP_NUM_THREADS": "1"}
"""Ray gives this to a replica of one CPU; the bare server would otherwise take as many threads as there are cores."""


def bare_command(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """``vllm serve`` as a user would start it.

    >>> bare_command({"dtype": "bfloat16", "enforce_eager": True})[-3:]
    ('--dtype', 'bfloat16', '--enforce-eager')
    """
    words: list[str] = []
    for key, value in arguments.items():
        flag = "--" + key.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return ("vllm", "serve", MODEL_PATH, "--served-model-name", MODEL, "--host", "0.0.0.0", "--port", "8000", *words)


@dataclass(frozen=True)
class Kind:
    """How one container is started: its image, variables, and the command in place of the image's own, if any."""

    image: str = IMAGE
    variables: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """What is measured: a port of a container of some kind."""

    title: str
    kind: str
    port: int = 8000


SERVERS = {
    "bare": Server("bare vLLM server", "bare"),
    "ours": Server("ray-serve-cai", "ours"),
    "ray-llm": Server("ray.serve.llm", "ray-llm"),
    "ours-ingress": Server("ray-serve-cai, Ray's HAProxy", "ours", 8001),
    "ours-replica": Server("ray-serve-cai, the replica's port", "ours", 30000),
    "ours-with": Server("ray-serve-cai, other settings", "ours-with"),
    "bare-mp": Server("bare vLLM server, vLLM's own process layout", "bare-mp"),
}
"""The benchmark's default is the first three; the others say where time goes."""


def kinds(extra: Mapping[str, str] | None = None) -> dict[str, Kind]:
    """Every kind of container; ``extra`` are variables for ``ours-with``."""
    bare, arguments = bare_command(ENGINE_ARGUMENTS), json.dumps(ENGINE_ARGUMENTS)
    return {
        "bare": Kind(variables=THREADS, command=bare),
        "bare-mp": Kind(variables=THREADS | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, command=bare),
        "ours": Kind(variables=THREADS | {"RSCAI_ENGINE_ARGS": arguments}),
        "ours-with": Kind(variables=THREADS | {"RSCAI_ENGINE_ARGS": arguments} | dict(extra or {})),
        "ray-llm": Kind(RAY_LLM_IMAGE, THREADS | {"BENCH_ENGINE_ARGS": arguments}),
    }


def build_ray_llm() -> None:
    """The image of ``ray.serve.llm``: ours, and the few packages that it wants beside Serve and vLLM.

    The host's pip gets them, with the host's settings, so that no index and no certificate has to reach the build.
    """
    packages = ROOT / RAY_LLM_PACKAGES
    wanted = HERE / "ray-llm.txt"
    if not (packages / "done").is_file() or (packages / "done").stat().st_mtime < wanted.stat().st_mtime:
        platforms = ("any", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
        where = ("--target", str(packages), "--upgrade", "--python-version", "3.11", "--implementation", "cp", "--only-binary", ":all:")
        what = ("--quiet", "--no-deps", *(word for name in platforms for word in ("--platform", name)), "-r", str(wanted))
        run(sys.executable, "-m", "pip", "install", *where, *what, timeout=600)
        (packages / "done").touch()
    context = ("--build-context", f"packages={packages}", "-f", str(HERE / "ray-llm.Dockerfile"), "-t", RAY_LLM_IMAGE, str(HERE))
    run("docker", "buildx", "build", "--quiet", "--build-arg", f"BASE={IMAGE}", *context, timeout=600)


class Container:
    """One running container. Its address on Docker's bridge is used: published ports go through one more process."""

    def __init__(self, name: str, kind: Kind) -> None:
        self._kind = kind
        self.name = f"rscai-bench-{name}-{uuid.uuid4().hex[:6]}"
        self._frozen = False

    def __enter__(self) -> Container:
        kind = self._kind
        variables = [f"--env={name}={value}" for name, value in kind.variables.items()]
        # A health check is a Python process every few seconds: none for anyone.
        run("docker", "run", "--detach", "--name", self.name, "--shm-size", "1g", "--no-healthcheck", *variables, kind.image, *kind.command)
        template = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        pid, self.address = run("docker", "inspect", "--format", template, self.name).stdout.split()
        self._usage = cpu_file(Path(f"/proc/{pid}/cgroup").read_text())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            done = run("docker", "logs", "--tail", "20", self.name, check=False)
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        run("docker", "rm", "--force", "--volumes", self.name, check=False)

    def wait_ready(self) -> None:
        """Until the model generates; ``/v1/models`` alone may answer before.

        Raises:
            RuntimeError: the container has ended.
            AssertionError: it does not generate within `READY_S`.
        """
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}

        def generates() -> bool:
            if run("docker", "inspect", "--format", "{{.State.Running}}", self.name).stdout.strip() != "true":
                raise RuntimeError(f"{self.name} has ended before it was ready")
            return httpx.post(f"http://{self.address}:8000/v1/chat/completions", json=body, timeout=60).status_code == 200

        until(f"{self.name} generates", generates, READY_S)

    def cpu_s(self) -> float:
        """CPU seconds of all processes of the container since its start."""
        return cpu_seconds(self._usage.read_text())

    def idle_cores(self, window_s: float) -> float:
        """CPUs in use while nothing is asked of it."""
        before, started = self.cpu_s(), time.monotonic()
        time.sleep(window_s)
        return (self.cpu_s() - before) / (time.monotonic() - started)

    def freeze(self) -> None:
        """Stop all of its processes where they are: others are measured now. On a busy machine the kernel may need a second try."""
        if not self._frozen:
            until(f"{self.name} is frozen", lambda: run("docker", "pause", self.name).stdout, FREEZE_S)
            self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            run("docker", "unpause", self.name)
            self._frozen = False


def cpu_file(membership: str, root: Path = Path("/sys/fs/cgroup")) -> Path:
    """The file that counts a container's CPU time, from its /proc/PID/cgroup (cgroup v1: cpuacct, v2: cpu.stat)."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            return next(file for name in (controllers, "cpuacct") if (file := root / name / path.lstrip("/") / "cpuacct.usage").exists())
    unified = next(line for line in membership.splitlines() if line.startswith("0::"))
    return root / unified.removeprefix("0::/") / "cpu.stat"


def cpu_seconds(text: str) -> float:
    """Seconds from cpuacct.usage (nanoseconds) or cpu.stat (its usage_usec).

    >>> cpu_seconds("1500000000"), cpu_seconds("usage_usec 1500000\\nuser_usec 1\\n")
    (1.5, 1.5)
    """
    if text.strip().isdigit():
        return int(text) / 1e9
    return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6


def machine_cpu_s(stat: Path = Path("/proc/stat")) -> float:
    """CPU seconds of all processes of the machine: user, nice, system, irq and softirq of its first line."""
    user, nice, system, _, _, irq, softirq = (int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def quiet(timeout_s: float, limit_cores: float = QUIET_CORES, looks: int = 2) -> bool:
    """Wait until the machine uses less than ``limit_cores`` CPUs in so many looks of half a second; says whether it came to that."""
    deadline, calm = time.monotonic() + timeout_s, 0
    while calm < looks:
        before, started = machine_cpu_s(), time.monotonic()
        time.sleep(LOOK_S)
        used = (machine_cpu_s() - before) / (time.monotonic() - started)
        calm = calm + 1 if used < limit_cores else 0
        if time.monotonic() > deadline:
            return False
    return True


def foreign_containers(ours: Sequence[str]) -> int:
    """Running containers that are not the benchmark's: they disturb it."""
    names = run("docker", "ps", "--filter", "status=running", "--format", "{{.Names}}").stdout.split()
    return len(set(names) - set(ours))
