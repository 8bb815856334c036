"""The life of one application of a cluster: its port answers at once, and a launcher runs, with what this platform tells it.

The launcher itself (`ray_serve_cai.node`) knows nothing of projects and their files. A head's address goes into a file there; a worker
waits for it, and starts its launcher anew whenever it names another head. A launcher that fails is started again, as Compose would do.

Longer than most modules: port, launcher, file and preflight share one life and one way out, and are read as one story.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

from ray_serve_cai import __version__, logs, private_file
from ray_serve_cai.cai import front, rendezvous, session_workers
from ray_serve_cai.cai.config import DIRECTORY, HOME
from ray_serve_cai.cai.crossing import FRESH_S, Crossing
from ray_serve_cai.cai.reception import MARK, Reception
from ray_serve_cai.cai.session_workers import SessionWorkers
from ray_serve_cai.errors import ConfigError, ModelNotFoundError, RayServeCaiError, ResourceError, UnavailableError, UsageError, counted
from ray_serve_cai.node import discovery, join, machine
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.environment import flag, integer, text
from ray_serve_cai.node.ports import Ports
from ray_serve_cai.node.process import Child, adopt_orphans, end_descendants, reap

logger = logging.getLogger(__name__)

APP_PORT = 8100
POLL_S = 0.5
LOOK_S = 2.0
"""How often a worker looks whether the head is another one."""
ASK_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S, LONG_LIFE_S = 1.0, 30.0, 300.0
SHOWN_S = 180.0
"""How long an application says what is wrong with its configuration before it ends; the platform's API has no logs to look into."""
HOPELESS = frozenset({UsageError.exit_code, ModelNotFoundError.exit_code, ConfigError.exit_code})
"""Exit codes of a launcher that nothing but a change helps."""
STOP_GRACE_S = 15.0
TOLD_S = 5.0
PREFLIGHT_AGAIN_S = 5.0
LAUNCHER = (sys.executable, "-m", "ray_serve_cai.cli", "node")


@dataclass(frozen=True)
class Place:
    """What an application is told of its cluster.

    Attributes:
        directory: of the project, the same for all nodes of the cluster.
        port: that the platform publishes.
    """

    role: Literal["head", "worker"]
    cluster: str
    directory: Path
    port: int

    @property
    def file(self) -> Path:
        return rendezvous.place(self.directory, self.cluster)

    @property
    def nodes(self) -> Path:
        """Where nodes say where they are, if a model's ranks cross them."""
        return self.directory / f"{self.cluster}.nodes"

    @property
    def state(self) -> Path:
        """What a head keeps over restarts."""
        return self.directory / f"{self.cluster}.state"


def place(env: Mapping[str, str]) -> Place:
    """Read it from the environment.

    Raises:
        UsageError: the role is none, or the port.
    """
    role = text(env, "RSCAI_ROLE") or ""
    if role not in ("head", "worker"):
        raise UsageError(f"RSCAI_ROLE is {role!r}; an application of a cluster is 'head' or 'worker', and `ray-serve-cai cai up` sets it.")
    directory = Path(text(env, "RSCAI_CLUSTER_DIR") or HOME / DIRECTORY)
    port = integer(env, "CDSW_APP_PORT", low=1, high=65535) or APP_PORT
    return Place("head" if role == "head" else "worker", text(env, "RSCAI_CLUSTER") or "ray-serve", directory, port)


def launcher_environment(env: Mapping[str, str], here: Place, head: str | None) -> dict[str, str]:
    """What the launcher is told. Pure.

    Args:
        head: for a worker, the head's address.
    """
    made = {
        **env,
        "RSCAI_LOG_FORMAT": logs.JSON,  # which this process passes on as it was told to
        "PYTHONSAFEPATH": "1",  # a project may be a clone of this repository, and the image's package is what runs
    }
    if here.role == "head":
        made |= {
            "RSCAI_HOST": "127.0.0.1",
            "RSCAI_PORT": str(here.port),
            "RSCAI_PORT_SHARED": "1",
            "RSCAI_STATE_DIR": text(env, "RSCAI_STATE_DIR") or str(here.state),
        }
        made.pop("RSCAI_HEAD_ADDRESS", None)  # its own would be that of a former life
    else:
        made["RSCAI_HEAD_ADDRESS"] = head or ""
    return made


def pause(lives: int, lived_s: float) -> tuple[int, float]:
    """How many short lives there were in a row, this one included, and how long to wait after it, seconds. Pure."""
    lives = 1 if lived_s >= LONG_LIFE_S else lives + 1
    return lives, min(FIRST_PAUSE_S * 2 ** (lives - 1), LONGEST_PAUSE_S)


class Application:
    """One application, from start to exit."""

    def __init__(self, env: Mapping[str, str], launcher: Sequence[str] = LAUNCHER) -> None:
        self._env = env
        self._command = launcher
        self._here = place(env)
        self._token = text(env, "RSCAI_TOKEN") or ""
        self._status_port = integer(env, "RSCAI_STATUS_PORT", low=1, high=65535) or Ports.status
        self._grace_s = discovery.drain_s(env) + STOP_GRACE_S
        self._reception = Reception(self._here.port, self.document)
        self._crossing = self._crosses() if flag(env, "RSCAI_CLUSTER_CROSSING") else None
        listed = text(env, "RSCAI_CLUSTER_WORKERS") if self._here.role == "head" else None
        self._workers = SessionWorkers(session_workers.api(), session_workers.told(listed), env) if listed else None
        self._phase, self._detail = "starting", "the launcher starts"
        self._launcher: Child | None = None
        self._session = ""
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until told to stop, or until nothing can help; the launcher's exit code then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._reception.open()
        except OSError as error:
            raise ResourceError(
                f"port {self._here.port} of this application is in use ({error.strerror}); which other program listens here?"
            ) from error
        try:
            return await self._lives()
        finally:
            if self._session:
                rendezvous.withdraw(self._here.file, self._session)
            if self._crossing:
                await self._crossing.close()
            await self._reception.close()

    async def document(self) -> dict[str, Any]:
        """What this node says of itself: its launcher's words, where there is one that answers."""
        own = {"status": "failed" if self._phase == "failed" else "starting", "phase": self._phase, "phase_detail": self._detail}
        own |= {"role": self._here.role, "version": __version__}
        if self._launcher is None or not self._launcher.running:
            return own
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        url = f"http://127.0.0.1:{self._status_port}/health"
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                told = await answer.json()
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            return own
        return told if isinstance(told, dict) else own

    async def _lives(self) -> int:
        lives = 0
        adopt_orphans()
        while not self._stop.is_set():
            head = await self._head_address() if self._here.role == "worker" else None
            if self._here.role == "worker" and head is None:
                break
            if self._crossing:
                await self._preflight(self._crossing)
            began = time.monotonic()
            code = await self._live(head)
            if self._stop.is_set():
                break
            await self._reception.open()
            if self._moved(head):
                lives = 0
                continue
            if code in HOPELESS or code == 0:
                return await self._show_and_end(code)
            lives, wait_s = pause(lives, time.monotonic() - began)
            self._say("starting again", f"the launcher ended with exit code {code}: {self._said()}; it starts again in {wait_s:g} s")
            await self._sleep(wait_s)
        return 0

    async def _head_address(self) -> rendezvous.Record | None:
        """What the head says, once it does; None where this node is told to stop before."""
        while not self._stop.is_set():
            found = rendezvous.read(self._here.file)
            if found:
                return found
            self._say("waiting for the head", f"the head has not written its address to {self._here.file} yet")
            await self._sleep(POLL_S)
        return None

    def _crosses(self) -> Crossing:
        own_ip = text(self._env, "CDSW_IP_ADDRESS") or machine.inspect().primary_ip()
        return Crossing(self._here.nodes, text(self._env, "RSCAI_CLUSTER_NODE") or self._here.role, own_ip, self._token)

    async def _preflight(self, crossing: Crossing) -> None:
        """Return when the ways to all nodes that are there work; until then say which does not, and try again."""
        began = time.monotonic()
        while not self._stop.is_set():
            try:
                await crossing.open()
                peers = crossing.peers()
                for name, peer in peers.items():
                    self._say("preflight", f"trying the way to {name} at {peer}, since a model's ranks cross nodes")
                    logger.info("preflight: %s", await crossing.check(name, peer))
            except (UnavailableError, OSError) as error:
                lasts = time.monotonic() - began > FRESH_S + PREFLIGHT_AGAIN_S  # before, it may be a node that is gone
                self._say("failed" if lasts else "preflight", f"preflight: {error}")
                await self._sleep(PREFLIGHT_AGAIN_S)
                continue
            logger.info("preflight: %s", f"the ways to {counted(len(peers), 'other node')} work" if peers else "no other node is there yet")
            return

    async def _stay_known(self) -> None:
        """Say again and again where this node is, for others' preflight, and of a head how it is, for sessions of the project."""
        while True:
            with contextlib.suppress(OSError):
                if self._crossing:
                    await self._crossing.open()
                if self._here.role == "head":
                    private_file.write(front.told_at(self._here.directory, self._here.cluster), json.dumps(await self.document()))
            reap(self._launcher.pid if self._launcher else None)
            await asyncio.sleep(TOLD_S)

    async def _live(self, head: rendezvous.Record | None) -> int:
        """One life of the launcher; its exit code."""
        self._say("starting", f"joining the head at {head.address}" if head else "the launcher starts")
        env = launcher_environment(self._env, self._here, head.address if head else None)
        self._launcher = launcher = Child("launcher")
        await launcher.start(self._command, env)
        ended, stopping = asyncio.create_task(launcher.wait()), asyncio.create_task(self._stop.wait())
        beside = asyncio.create_task(self._until_moved(head) if head else self._announce(env, launcher))
        known = asyncio.create_task(self._stay_known())
        beside.add_done_callback(_report)
        try:
            await asyncio.wait([ended, stopping, *([beside] if head else [])], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await launcher.stop(self._grace_s)
            return await ended
        finally:
            for task in (ended, stopping, beside, known):
                task.cancel()
            await asyncio.gather(ended, stopping, beside, known, return_exceptions=True)
            await launcher.stop(STOP_GRACE_S)
            if left := await asyncio.to_thread(end_descendants):  # of Ray and Serve, on ports that the next life needs
                logger.info("ended what the launcher left: %s", ", ".join(sorted(left)))

    async def _announce(self, env: Mapping[str, str], launcher: Child) -> None:
        """Leave the port to the front door once it is open, write the address once there is a session, and keep workers there."""
        planned = discovery.plan(env, machine.inspect())
        own = Address("127.0.0.1", planned.ports.gcs)
        opened = written = False
        while launcher.running and not (opened and written and self._workers is None):
            if not opened and await self._door_is_open():
                opened = True
                await self._reception.close()
            if not written:
                with contextlib.suppress(RayServeCaiError):  # no answer yet, or none to this token yet
                    roll = await join.fetch_roll(own, planned.ports.status, self._token)
                    address = str(Address(planned.node_ip or "", planned.ports.gcs))
                    versions = {name: str(value) for name, value in roll.manifest.items()}
                    written = self._write(rendezvous.Record(address, roll.session, versions))
            if written and self._workers is not None:
                await asyncio.to_thread(self._workers.step)
            await asyncio.sleep(LOOK_S if opened and written else POLL_S / 2)

    def _write(self, record: rendezvous.Record) -> bool:
        try:
            rendezvous.write(self._here.file, record)
        except OSError as error:
            logger.error(
                "%s cannot be written: %s; workers wait for it. Is the project's file system full?", self._here.file, error.strerror
            )
            return False
        self._session = record.session
        logger.info("workers find the head at %s in %s", record.address, self._here.file)
        return True

    async def _door_is_open(self) -> bool:
        """Whether the front door answers beside the reception; which of the two gets a connection is chance."""
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"http://127.0.0.1:{self._here.port}/") as answer:
                return MARK not in answer.headers
        return False

    async def _until_moved(self, head: rendezvous.Record) -> None:
        """Return when the file names another address. A head that was started anew at the same one is the launcher's to see."""
        while not await asyncio.to_thread(self._moved, head):
            await asyncio.sleep(LOOK_S)
        logger.info("the head is at another address; this node leaves and joins it there")

    def _moved(self, head: rendezvous.Record | None) -> bool:
        found = rendezvous.read(self._here.file) if head else None
        return bool(found and head and found.address != head.address)

    async def _show_and_end(self, code: int) -> int:
        """Say for a while why the node cannot live, for whoever asks its address, and leave with the launcher's exit code."""
        if code:
            self._say("failed", self._said())
            await self._sleep(SHOWN_S)
        return code

    def _said(self) -> str:
        """The launcher's last words."""
        lines = list(self._launcher.last_lines) if self._launcher else []
        errors = [error for line in lines if (error := logs.error_in(line)) is not None]
        first, *more = (errors[-1] if errors else (lines or ["it said nothing"])[-1]).splitlines()
        return f"{first} {more[-1].strip()}" if more else first

    def _say(self, phase: str, detail: str) -> None:
        if (phase, detail) != (self._phase, self._detail):
            self._phase, self._detail = phase, detail
            logger.info("%s: %s", phase, detail)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)


def _report(task: asyncio.Task[None]) -> None:
    """Nothing is lost without a word."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s: %s", type(error).__name__, error, exc_info=error)
