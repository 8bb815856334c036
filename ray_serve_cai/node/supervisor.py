"""The launcher's life: preflight, front door, Ray, serving; then watch, drain and leave. All effects of a node start here.

Longer than most modules: the steps of a head and of a worker share children, status and the way out, and are read as one story.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ray_serve_cai import logs, private_file, sources, state
from ray_serve_cai.errors import EngineError, RayServeCaiError, ResourceError, SessionChangedError, UnavailableError
from ray_serve_cai.node import command, frontdoor, hooks, join, manifest, preflight, status, tls, token
from ray_serve_cai.node.address import Address, everywhere, loopback
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.environment import text
from ray_serve_cai.node.keyring import Keyring, Keys
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.metrics import Collector
from ray_serve_cai.node.process import Child
from ray_serve_cai.node.ray_environment import child_environment, proxy_threads
from ray_serve_cai.state import ClusterState

logger = logging.getLogger(__name__)

STATE_DIR = "/var/lib/ray-serve-cai"
RUN_DIR = Path("/tmp/ray-serve-cai")
DEPLOYED = "deployed.json"
RAY_START_TIMEOUT_S = 120.0
MOST_FILES = 1 << 20
"""More does not help, and some programs look at each possible descriptor."""
STOP_GRACE_S = 8.0
HEAD_LOST_S = 60.0
POLL_S = 0.25
WATCH_S = 2.0


@dataclass(frozen=True)
class Served:
    """What a head is to serve, as far as the launcher must know.

    Attributes:
        models: their state before anything runs; the first owns the root.
        files: what a node needs to be given a part of one.
        max_body_mb: largest request body, MiB.
        spanning: engines of which a replica has ranks on several nodes.
        keys: those that clients must have; None where anybody may ask.
        guarded: whether the engines ask for keys of their own.
    """

    models: tuple[state.ModelState, ...]
    files: tuple[state.ModelFiles, ...]
    max_body_mb: int
    spanning: tuple[str, ...] = ()
    keys: Keys | None = None
    guarded: bool = False


def _raise_open_files() -> None:
    """Let this process and its children open as many files as they may: containers often start with a soft limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Supervisor:
    """One node, from start to exit.

    Args:
        served: None on a worker.
        engines: those installed here.
        once: a worker that the head refuses leaves, instead of trying again.
    """

    def __init__(
        self,
        plan: NodePlan,
        served: Served | None,
        machine: Machine,
        env: Mapping[str, str],
        engines: Sequence[str],
        *,
        once: bool = False,
    ) -> None:
        self._plan = plan
        self._served = served
        self._machine = machine
        self._engines = engines
        self._once = once
        self._run_dir, self._state_dir = directories(env)
        self._state_file = self._run_dir / "state.json"
        self._state_file.unlink(missing_ok=True)
        self._manifest = manifest.read()
        self._given_token = token.given(env)
        addresses = (plan.node_ip, plan.head.host if plan.head else None)
        self._env = child_environment(env, plan.drain_s, machine.cpus, (address for address in addresses if address))
        self._status = status.NodeStatus(
            role=plan.role, manifest=self._manifest, cluster=self._cluster, session=secrets.token_hex(8), detail="starting"
        )
        self._status.spanning = served.spanning if served else ()
        self._status.tls = tls.given(env) is not None
        if served:
            self._status.collector = Collector(self._cluster, plan.ports, frontdoor.Sockets.within(self._run_dir).metrics)
        self._children: list[Child] = []
        self._door = Child("front door", quiet=True)
        keys = served.keys if served else None
        self._keyring = Keyring(keys, [model.name for model in served.models], self._run_dir) if served and keys else None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Run the node until it is told to stop; 0 then.

        Raises:
            RayServeCaiError: what made it impossible to go on.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        logger.info("role %s by rule %r, listening on %s", self._plan.role, self._plan.rule, self._plan.host)
        preflight.check(self._plan, self._manifest.device)
        _raise_open_files()
        tls.check(self._env, self._plan.node_ip)
        host = everywhere(self._plan.node_ip) if self._plan.role == "head" else "127.0.0.1"
        server = await status.listen(self._status, host, self._plan.ports.status)
        try:
            return await self._until_stopped(self._live())
        finally:
            for child in reversed(self._children):
                await child.stop(STOP_GRACE_S)
            await server.cleanup()

    async def _until_stopped(self, life: Awaitable[None]) -> int:
        living = asyncio.ensure_future(life)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([living, stopping], return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
                raise EngineError("the node ended without being told to.")
            await self._drain()
            return 0
        finally:
            for task in (living, stopping):
                task.cancel()
            await asyncio.gather(living, stopping, return_exceptions=True)

    async def _live(self) -> None:
        for hook in hooks.found(self._env):
            self._say(f"running hook {hook.name}")
            child = Child(f"hook {hook.name}")
            self._children.append(child)
            await hooks.run(hook, child, self._env | {"RSCAI_ROLE": self._plan.role})
        await (self._head(self._served) if self._served else self._worker())

    async def _head(self, served: Served) -> None:
        await self._open_door(served)
        await self._check_files(served.files)
        self._set_token(self._given_token or token.make(self._state_dir))
        node_ip = self._plan.node_ip or self._machine.primary_ip()
        ray = await self._start_ray(node_ip)
        await self._listening(node_ip, self._plan.ports.gcs, ray)
        serving = Child("serve")
        files = {"RSCAI_STATE_FILE": str(self._state_file), "RSCAI_DEPLOYED_FILE": str(self._state_dir / DEPLOYED)}
        decided = {"RSCAI_ROLE": self._plan.role, "RSCAI_MIN_NODES": str(self._plan.min_nodes)}  # not to be found out once more
        records = {"RSCAI_LOG_FORMAT": logs.JSON}  # which this process passes on as it was told to
        env = self._env | files | decided | records | {"RAY_ADDRESS": str(command.gcs_address(self._plan, node_ip))}
        self._children.append(serving)
        await serving.start([sys.executable, "-m", "ray_serve_cai.cli", "serve"], env)
        beside = [asyncio.create_task(self._keep_gateway(served, env))]
        if self._keyring:
            beside.append(asyncio.create_task(self._keyring.watch(frontdoor.Sockets.within(self._run_dir).commands)))
        try:
            await self._first_death(ray, serving, self._door)
        finally:
            for task in beside:
                task.cancel()

    async def _keep_gateway(self, served: Served, env: Mapping[str, str]) -> None:
        """Have the gateway run where models share an address; that it ends takes nothing else with it."""
        if not frontdoor.needs_gateway(served.models):
            return
        child, sockets = Child("gateway"), frontdoor.Sockets.within(self._run_dir)
        self._children.append(child)
        files = ["--socket", sockets.gateway, "--models", sockets.models, "--state-file", self._state_file]
        line = [sys.executable, "-m", "ray_serve_cai.cli", "gateway", *map(str, files), "--max-body-mb", str(served.max_body_mb)]
        while True:
            await child.start(line, env)
            code = await child.wait()
            logger.error("the gateway ended with exit code %d; it starts again", code)
            await asyncio.sleep(POLL_S)

    async def _worker(self) -> None:
        head = self._plan.head
        assert head is not None
        roll, node_ip = await self._admitted(head)
        self._say(f"joining the head at {head} as {node_ip}")
        ray = await self._start_ray(node_ip)
        watching = asyncio.create_task(self._watch_head(node_ip, roll.session))
        dying = asyncio.create_task(self._first_death(ray))
        try:
            await asyncio.wait([watching, dying], return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, dying):
                if task.done():
                    task.result()
        finally:
            watching.cancel()
            dying.cancel()

    async def _admitted(self, head: Address) -> tuple[join.Roll, str]:
        """The head's answer and this node's address, once the head lets it in; a refusal is shown, and tried again."""
        while True:
            try:
                return await self._ask_in(head)
            except join.REFUSALS as error:
                await join.tell_refused(head, self._plan.ports.status, self._status.token, str(error))
                if self._once:
                    raise
                self._status.refused = str(error)
                logger.error("refused: %s Trying again in %d s.", error, join.REFUSED_RETRY_S)
            await asyncio.sleep(join.REFUSED_RETRY_S)

    async def _ask_in(self, head: Address) -> tuple[join.Roll, str]:
        status_port = self._plan.ports.status

        def key() -> str | None:
            return self._given_token or token.read(self._state_dir)

        roll = await join.wait_for_head(head, status_port, self._plan.join_timeout_s, key, self._say)
        join.compare(self._manifest, roll.manifest, roll.spanning)
        join.compare_tls(self._status.tls, roll)
        self._set_token(key() or "")
        await self._check_files(roll.files)
        node_ip = self._plan.node_ip or await join.own_ip(head, self._machine.source_ip)
        tls.check(self._env, node_ip)
        await tls.greet(self._env, head)
        await join.check_address(node_ip, roll, lambda: join.fetch_roll(head, status_port, self._status.token))
        self._status.refused = ""
        return roll, node_ip

    async def _watch_head(self, node_ip: str, session: str) -> None:
        """Know whether this node is in the cluster, and leave when the head is another one or gone for long."""
        assert self._plan.head is not None
        answered = time.monotonic()
        while True:
            try:
                roll = await join.fetch_roll(self._plan.head, self._plan.ports.status, self._status.token)
            except UnavailableError as error:
                if time.monotonic() - answered > HEAD_LOST_S:
                    raise UnavailableError(f"the head at {self._plan.head} does not answer for {HEAD_LOST_S:.0f} s; {error}") from error
            else:
                answered = time.monotonic()
                if roll.session != session:
                    raise SessionChangedError(f"the head at {self._plan.head} was started anew; this node leaves and joins again.")
                joined = roll.node(node_ip) is not None
                if joined != self._status.joined:
                    self._say(f"joined the cluster as {node_ip}" if joined else "no longer in the cluster")
                self._status.joined = joined
            await asyncio.sleep(WATCH_S if self._status.joined else POLL_S)

    async def _start_ray(self, node_ip: str) -> Child:
        line = command.ray_start(self._plan, self._engines, node_ip)
        ray = Child("ray", quiet=logger.getEffectiveLevel() > logging.DEBUG)
        self._children.append(ray)
        await ray.start(line, self._env | {"VLLM_HOST_IP": node_ip})
        return ray

    async def _open_door(self, served: Served) -> None:
        if self._keyring:
            self._keyring.write()
        elif not served.guarded and self._plan.host not in status.LOOPBACK:
            logger.warning(
                "no API keys are set: whoever reaches port %d may use the models; RSCAI_API_KEYS_FILE sets them",
                self._plan.ports.front_door,
            )
        file = self._run_dir / "haproxy.cfg"
        file.write_text(
            frontdoor.render(
                self._plan,
                models=[model.name for model in served.models],
                directory=self._run_dir,
                keys=self._keyring is not None,
                max_body_mb=served.max_body_mb,
                threads=proxy_threads(self._machine.cpus),
                connections=frontdoor.connections(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            )
        )
        self._children.append(self._door)
        await self._door.start([frontdoor.binary(), "-db", "-f", str(file)], self._env)
        await self._listening(loopback(self._plan.host), self._plan.ports.front_door, self._door)

    async def _listening(self, host: str, port: int, child: Child) -> None:
        """Wait until a child listens; its death or the deadline is an error."""
        deadline = time.monotonic() + RAY_START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return
            if not child.running:
                await self._first_death(child)
            if time.monotonic() > deadline:
                raise ResourceError(f"{child.name} does not listen on {host}:{port} after {RAY_START_TIMEOUT_S:.0f} s.")
            await asyncio.sleep(POLL_S)

    async def _first_death(self, *children: Child) -> None:
        """Raise what the first child that ends means."""
        waits = {asyncio.create_task(child.wait()): child for child in children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        task = done.pop()
        child, code = waits[task], task.result()
        if child.name == "serve" and code not in (0, 1):
            raise ChildFailed(code, "")  # it has said its own line
        tail = "".join(f"\n  {child.name}| {line}" for line in child.last_lines) if child.name != "serve" else ""
        raise ChildFailed(70, f"{child.name} ended with exit code {code}.{tail}")

    async def _drain(self) -> None:
        """Take no new requests, let streams end, then go; a second signal hurries."""
        logger.info("stopping: no new requests; streams may take %d s", self._plan.drain_s)
        self._status.stopping = True
        leaving = self._leave_cluster() if self._plan.role == "worker" else self._close_door()
        task, hurry = asyncio.create_task(leaving), asyncio.create_task(self._hurry.wait())
        await asyncio.wait([task, hurry], timeout=max(self._plan.drain_s, 1), return_when=asyncio.FIRST_COMPLETED)
        for pending in (task, hurry):
            pending.cancel()
        await asyncio.gather(task, hurry, return_exceptions=True)
        self._status.drained = True

    async def _close_door(self) -> None:
        if self._door.running:
            self._door.signal(signal.SIGUSR1)  # HAProxy's soft stop: no new connections, running ones may end
            await self._door.wait()

    async def _leave_cluster(self) -> None:
        """Have Serve move this node's replicas away; at once where it has none here.

        Where the head is leaving too there is nowhere to move them: they serve until its front door has seen the last stream end.
        """
        assert self._plan.head is not None
        told = False
        while self._status.joined:
            try:
                roll = await join.fetch_roll(self._plan.head, self._plan.ports.status, self._status.token)
            except RayServeCaiError:
                return
            node_ip = self._plan.node_ip or await join.own_ip(self._plan.head, self._machine.source_ip)
            node = roll.node(node_ip)
            if roll.stopping or node is None or not (node["replicas"] or node.get("shards")):
                return
            if not told and not roll.leaving:
                told = True
                await self._tell_drain(node["id"])
            await asyncio.sleep(POLL_S)

    async def _tell_drain(self, node_id: str) -> None:
        child = Child("drain", quiet=True)
        self._children.append(child)
        address = str(self._plan.head)
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the container is stopping"]
        deadline = ["--deadline-remaining-seconds", str(self._plan.drain_s)]
        await child.start(["ray", "drain-node", "--address", address, "--node-id", node_id, *reason, *deadline], self._env)
        code = await child.wait()
        if code:
            logger.warning("Ray did not take the drain request: %s", " ".join(child.last_lines)[-300:])

    async def _check_files(self, files: Iterable[state.ModelFiles]) -> None:
        """See that what may be placed here can be loaded here, before Ray places anything."""
        gpus = self._plan.resources.gpus
        await asyncio.to_thread(sources.check_all, files, dict(self._env), engines=self._engines, gpus=gpus)

    def _cluster(self) -> ClusterState:
        seen = state.read(self._state_file)
        if seen.models or self._served is None:
            return seen
        return replace(seen, models=self._served.models, files=self._served.files, expected=self._plan.min_nodes)

    def _set_token(self, value: str) -> None:
        file = self._run_dir / "ray-token"
        private_file.write(file, value)
        self._status.token = value
        self._env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}

    def _say(self, detail: str) -> None:
        if detail != self._status.detail:
            self._status.detail = detail
            logger.info("%s", detail)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()


class ChildFailed(RayServeCaiError):
    """A child process ended; the launcher leaves with its exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # an instance's own, where other errors have their class's


def directories(env: Mapping[str, str]) -> tuple[Path, Path]:
    """Where a node keeps what lasts as long as it runs, and what outlives it.

    Raises:
        ResourceError: nothing is writable.
    """
    run_dir = writable(RUN_DIR, Path(f"/tmp/ray-serve-cai-{os.getuid()}"))
    return run_dir, writable(Path(text(env, "RSCAI_STATE_DIR", STATE_DIR) or STATE_DIR), run_dir)


def writable(*candidates: Path) -> Path:
    """The first directory that can be made and written to.

    Raises:
        ResourceError: none can.
    """
    for directory in candidates:
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK):
                return directory
    raise ResourceError(f"none of {', '.join(map(str, candidates))} is writable; mount a tmpfs at /tmp.")
