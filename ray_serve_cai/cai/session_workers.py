"""Workers that the head's application starts itself, with the platform's Workers API, in place of applications of their own.

They inherit the head's runtime and die with it. Facts: Cloudera's documentation, Distributed Computing with Workers, and projects that use
it: ``launch_workers`` gives a list of dictionaries with ``id``, ``list_workers`` the sessions that are active. The module is nowhere else.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from ray_serve_cai.cai.config import ACCELERATED, CaiConfig
from ray_serve_cai.errors import UsageError

logger = logging.getLogger(__name__)

MODULE = "cml.workers_v1"
AGAIN_S = 30.0
"""A worker that ends at once is not started more often than that."""
PASSED = ("RSCAI_CLUSTER", "RSCAI_CLUSTER_DIR", "RSCAI_CLUSTER_CROSSING", "RSCAI_TOKEN", "VLLM_API_KEY", "HF_TOKEN")
"""Variables that workers have of their head, beside those that the file names."""


class WorkersApi(Protocol):
    """What is used of the platform's module."""

    def launch_workers(
        self, *, n: int, cpu: float, memory: float, nvidia_gpu: int, code: str, env: dict[str, str], name: str
    ) -> list[Any]: ...

    def list_workers(self) -> list[Any]: ...


@dataclass(frozen=True)
class Wanted:
    """One worker: cores, GB, GPUs."""

    name: str
    cpu: float
    memory: float
    gpus: int


@dataclass(frozen=True)
class Told:
    """What a head knows of its workers; ``variables`` are the names of those that it passes on."""

    workers: tuple[Wanted, ...] = ()
    variables: tuple[str, ...] = ()


def describe(cai: CaiConfig) -> str:
    """What a head is told of its workers, as the value of a variable."""
    workers = [
        vars(Wanted(f"{cai.name}-{group}-{number}", one.cpu, one.memory, one.gpus))
        for group, one in cai.workers.items()
        for number in range(1, one.count + 1)
    ]
    variables = [*PASSED, *ACCELERATED, *cai.environment]
    return json.dumps({"workers": workers, "variables": variables})


def told(value: str) -> Told:
    """What `describe` said.

    Raises:
        UsageError: it did not say that.
    """
    try:
        read = json.loads(value)
        return Told(tuple(Wanted(**one) for one in read["workers"]), tuple(map(str, read["variables"])))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"RSCAI_CLUSTER_WORKERS is {value!r}; `ray-serve-cai cai up` sets it.") from error


def api() -> WorkersApi:
    """The platform's module.

    Raises:
        UsageError: this is not inside the platform.
    """
    try:
        found: WorkersApi = importlib.import_module(MODULE)
    except ImportError as error:
        raise UsageError(f"cai.mode is 'workers', and {MODULE} is not here ({error}); use `applications`.") from error
    return found


def alive(listed: Sequence[Any]) -> set[str]:
    """The ids of workers that run or will. Pure."""
    ended = ("finished_at", "failed_at", "stopped_at")
    return {str(one["id"]) for one in listed if isinstance(one, Mapping) and one.get("id") and not any(one.get(name) for name in ended)}


class SessionWorkers:
    """Keeps the workers of a head there.

    Args:
        env: the head's.
    """

    def __init__(self, platform: WorkersApi, what: Told, env: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._platform = platform
        self._workers = what.workers
        self._env = {name: env[name] for name in what.variables if name in env}
        self._clock = clock
        self._ids: dict[str, str] = {}
        self._began: dict[str, float] = {}

    def step(self) -> None:
        """Start the workers that are not there; what the platform refuses is said and tried again later."""
        try:
            there = alive(self._platform.list_workers())
            for worker in self._missing(there):
                logger.info("starting worker %s (%g CPU, %g GB, %d GPU)", worker.name, worker.cpu, worker.memory, worker.gpus)
                self._began[worker.name] = self._clock()
                self._ids[worker.name] = self._launch(worker)
        except Exception as error:  # the module's errors have no class of their own
            logger.error("the Workers API failed: %s; it is asked again in %g s", " ".join(str(error).split())[:300], AGAIN_S)

    def _missing(self, there: Collection[str]) -> list[Wanted]:
        now = self._clock()
        return [
            worker
            for worker in self._workers
            if self._ids.get(worker.name) not in there and now - self._began.get(worker.name, -AGAIN_S) >= AGAIN_S
        ]

    def _launch(self, worker: Wanted) -> str:
        code = files("ray_serve_cai.cai").joinpath("launch.py").read_text()
        env = self._env | {"RSCAI_ROLE": "worker", "RSCAI_CLUSTER_NODE": worker.name}
        (made,) = self._platform.launch_workers(
            n=1, cpu=worker.cpu, memory=worker.memory, nvidia_gpu=worker.gpus, code=code, env=env, name=worker.name
        )
        return str(made["id"])
