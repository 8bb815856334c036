"""A worker's way into a cluster: wait for the head within a budget, compare versions, and see that it is still the same head."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from ray_serve_cai.errors import (
    AddressTakenError,
    HubError,
    ModelNotFoundError,
    TlsError,
    TokenError,
    UnavailableError,
    VersionMismatchError,
)
from ray_serve_cai.node.address import Address, literal_ip
from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.state import ModelFiles

logger = logging.getLogger(__name__)

POLL_S = 1.0
REFUSED_RETRY_S = 60
PROGRESS_S = 30.0
REQUEST_TIMEOUT_S = 5.0
REFUSED = 401
GONE_S = 30.0
"""How long the cluster may take to notice that the node which had this address before has ended."""
NO_TOKEN = "no cluster token yet (RSCAI_TOKEN is not set and the state volume has none)"
MUST_BE_EQUAL = ("protocol", "ray", "python")
"""What all nodes of a cluster share, as their manifests call it."""
REFUSALS = (TokenError, VersionMismatchError, TlsError, AddressTakenError, ModelNotFoundError, HubError)
"""What only a person can put right; the head, or this node, must be given something else."""


@dataclass(frozen=True)
class Roll:
    """What the head says of its cluster; a head of another build may say more, or less.

    Attributes:
        stopping: the head has closed its front door, and goes.
        nodes: dictionaries of `ray_serve_cai.state.NodeState`.
        spanning: engines of which a replica has ranks on several nodes.
        files: what a node needs for the models that are served.
        tls: whether the head uses TLS; None where it does not say.
        leaving: the head was told to stop, and lets streams end.
    """

    session: str
    manifest: dict[str, Any]
    stopping: bool
    nodes: list[dict[str, Any]]
    spanning: list[str]
    files: list[ModelFiles]
    tls: bool | None = None
    leaving: bool = False

    def node(self, ip: str) -> dict[str, Any] | None:
        """The living node with this address."""
        return next((node for node in self.nodes if node["ip"] == ip and node["alive"]), None)


async def fetch_roll(head: Address, status_port: int, token: str) -> Roll:
    """Ask the head once.

    Raises:
        UnavailableError: it does not answer; the message holds the address and what was seen.
        TokenError: it has another token.
    """
    url = f"http://{Address(head.host, status_port)}/cluster"
    try:
        async with _session(token) as session, session.get(url) as answer:
            if answer.status == REFUSED:
                raise TokenError(
                    f"the head at {head} refused this node's token; give all nodes the same RSCAI_TOKEN or RSCAI_TOKEN_FILE, "
                    "or the same state volume."
                )
            answer.raise_for_status()
            told = await answer.json()
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        raise UnavailableError(f"{url}: {str(error) or type(error).__name__}") from error
    try:
        return Roll(
            told["session"],
            told["manifest"],
            told["stopping"],
            told["nodes"],
            told.get("spanning", []),
            [ModelFiles(one["model"], one["source"], one["engine"], one["gpus"]) for one in told.get("files", [])],
            told.get("tls"),
            told.get("leaving", False),
        )
    except (TypeError, KeyError) as error:
        raise UnavailableError(f"{url}: {str(told)[:80]} is no roll of a cluster; is another program listening there?") from error


async def tell_refused(head: Address, status_port: int, token: str, reason: str) -> None:
    """Let the head know why this node does not join, for whoever waits there; without an answer, or with none that fits, nothing."""
    url = f"http://{Address(head.host, status_port)}/refused"
    with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
        async with _session(token) as session, session.post(url, json={"reason": reason}):
            pass


def _session(token: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    return aiohttp.ClientSession(timeout=timeout, headers={"Authorization": f"Bearer {token}"})


async def wait_for_head(
    head: Address, status_port: int, timeout_s: float, token: Callable[[], str | None], say: Callable[[str], None]
) -> Roll:
    """Ask until the head answers; the token may appear meanwhile, and DNS is asked anew each time.

    Raises:
        UnavailableError: the budget is spent; the message holds the address and what was seen last.
        TokenError: as `fetch_roll`, or the budget is spent without any token.
    """
    start = time.monotonic()
    spoke = start
    seen = "nothing yet"
    while True:
        key = token()
        if key is None:
            seen = NO_TOKEN
        else:
            try:
                return await fetch_roll(head, status_port, key)
            except UnavailableError as error:
                seen = str(error)
        say(f"waiting for the head at {head}: {seen}")
        now = time.monotonic()
        if now - start >= timeout_s and seen == NO_TOKEN:
            raise TokenError(
                f"no cluster token after {timeout_s:.0f} s; give all nodes the same RSCAI_TOKEN or RSCAI_TOKEN_FILE, "
                "or the head's state volume."
            )
        if now - start >= timeout_s:
            raise UnavailableError(
                f"no head at {head} after {timeout_s:.0f} s; last seen: {seen}. "
                "Check RSCAI_HEAD_ADDRESS, that the head runs, and the network; RSCAI_JOIN_TIMEOUT_S waits longer."
            )
        if now - spoke >= PROGRESS_S:
            spoke = now
            logger.info("waiting for the head at %s since %.0f s: %s", head, now - start, seen)
        await asyncio.sleep(min(POLL_S, max(timeout_s - (now - start), 0.05)))


def compare(mine: Manifest, head: dict[str, Any], spanning: Sequence[str]) -> None:
    """Refuse to join a head that differs in what must be equal; another build only warns, so that an update can go node by node.

    Raises:
        VersionMismatchError: naming both sides and the fix.
    """
    own = mine.as_dict()
    keys = [*MUST_BE_EQUAL]
    same = own["engine"] == head.get("engine")
    if same and mine.engine in spanning:  # the ranks of one replica speak the engine's own protocol
        keys.append("engine_version")
    for key in keys:
        if own[key] != head.get(key):
            raise VersionMismatchError(
                f"this node has {key} {own[key]} and the head has {head.get(key)}; start both from images of the same release."
            )
    if same and own["build_id"] != head.get("build_id"):
        logger.warning("this node is build %s and the head is build %s", own["build_id"], head.get("build_id"))


def compare_tls(mine: bool, roll: Roll) -> None:
    """Refuse to join a head that uses TLS where this node does not, or the other way round: Ray would wait for an answer in silence.

    Raises:
        TlsError: naming both sides and the fix.
    """
    if roll.tls is not None and roll.tls != mine:
        sides = "this node uses TLS and the head does not" if mine else "the head uses TLS and this node does not"
        raise TlsError(f"{sides}; set RAY_USE_TLS=1 and certificates on all nodes, or on none.")


async def check_address(node_ip: str, roll: Roll, look: Callable[[], Awaitable[Roll]]) -> None:
    """Wait until no living node has this address: this node's former life, which the cluster takes a moment to see ended.

    Args:
        look: asks the head again.

    Raises:
        AddressTakenError: it is another node's.
        UnavailableError: the head does not answer any more.
    """
    deadline = time.monotonic() + GONE_S
    while roll.node(node_ip) is not None:
        if time.monotonic() > deadline:
            raise AddressTakenError(
                f"this node's address is {node_ip}, and the cluster has a living node with that address; give each node its own: "
                "host networking, one network for all containers, or RSCAI_NODE_IP."
            )
        await asyncio.sleep(POLL_S)
        roll = await look()


async def own_ip(head: Address, source_ip: Callable[[str], str | None]) -> str:
    """The address from which this node reaches the head, so that the head can reach it back.

    Raises:
        UnavailableError: the head's name does not resolve, or there is no route.
    """
    target = literal_ip(head.host)
    if target is None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(head.host, head.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UnavailableError(f"the head's name {head.host!r} does not resolve: {error}.") from error
        target = str(found[0][4][0])
    ip = source_ip(target)
    if ip is None:
        raise UnavailableError(f"there is no route to the head at {target}; check the network, or set RSCAI_NODE_IP.")
    return ip
