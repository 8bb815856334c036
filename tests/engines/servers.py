"""Pairs of servers: the product, and the engine's own server with the same arguments, side by side."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.containers import READY_S, Node, run, until
from tests.engines.comparison import Answer, ask, differences
from tests.engines.contract import ATTEMPTS, TOLERANCE, Contract, Profile
from tests.engines.contracts import CONTRACTS
from tests.engines.shapes import MODEL, Shape

LABELS = {"rscai-test": "engines"}
PORT = 8000


class Pair:
    """Both servers of a profile, started together; each request goes to both, one after the other, so that their states match."""

    def __init__(self, contract: Contract, profile: Profile, *, adapters: Path) -> None:
        environment = {"PYTHONHASHSEED": "0", **profile.environment}  # messages list sets in the order of their hashes
        common: dict[str, Any] = {"volumes": [(str(adapters), "/adapters", "ro")], "shm_size": "1g", "labels": LABELS}
        arguments = json.dumps(dict(profile.arguments))
        self.contract = contract
        self.ours = Node(contract.image, env={"RSCAI_MODEL": MODEL, "RSCAI_ENGINE_ARGS": arguments, **environment}, **common)
        command = contract.command(profile, port=PORT)
        self.theirs = Node(contract.image, env=environment, entrypoint=contract.entrypoint, command=command, **common)
        self._stack = ExitStack()

    def __enter__(self) -> Pair:
        with self._stack:
            self._stack.enter_context(self.ours)
            self._stack.enter_context(self.theirs)
            ready = self.contract.ready
            until("both servers ready", lambda: answers(self.theirs, ready) and answers(self.ours, "/ready"), READY_S, interval=0.25)
            for path in self.contract.settle:
                for server in (self.ours, self.theirs):
                    assert server.api.post(path, {}).status_code == 200, path
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def logs(self) -> str:
        """Shown with a red test."""
        return f"--- ours\n{self.ours.logs()[-8000:]}\n--- theirs\n{self.theirs.logs()[-8000:]}"

    def ask(self, shape: Shape) -> tuple[Answer, Answer]:
        """The two answers, ours first."""
        return ask(self.ours.api.url, shape), ask(self.theirs.api.url, shape)

    def compare(self, shape: Shape) -> Answer:
        """Fail with a readable list unless the answers are equal; the answer, if they are."""
        for _ in range(ATTEMPTS if shape.name in self.contract.unsteady else 1):
            ours, theirs = self.ask(shape)
            found = differences(ours, theirs, tolerance=TOLERANCE if shape.name in self.contract.batched else 0)
            if not found:
                break
        assert not found, f"{shape.name} ({shape.reason}): ours != theirs\n  " + "\n  ".join(found[:40])
        return ours


def answers(node: Node, path: str) -> bool:
    """Whether the path answers with 200; a container that has ended fails at once."""
    try:
        return node.api.get(path).status_code == 200
    except (httpx.TransportError, TimeoutError):  # the latter when Docker has no port for it any more
        state = run("docker", "inspect", "--format", "{{.State.Running}}", node.id).stdout.strip()
        if state != "true":
            raise RuntimeError(f"a server of the pair has ended:\n{node.logs()[-4000:]}") from None
        return False


class Pairs:
    """Starts the pair that is asked for, and ends the one that ran before."""

    def __init__(self, *, adapters: Path) -> None:
        self._adapters = adapters
        self._pair: Pair | None = None
        self._name = ""

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def get(self, name: str) -> Pair:
        """The running pair of this name, as ``ENGINE:PROFILE``; a pair that failed to start is not tried again."""
        if self._name != name:
            self.close()
            self._name = name
            engine, _, profile = name.partition(":")
            contract = CONTRACTS[engine]
            self._pair = Pair(contract, contract.profiles[profile], adapters=self._adapters).__enter__()
        assert self._pair, f"the servers of {name} did not start; see the first of its tests"
        return self._pair

    def close(self) -> None:
        """End the running pair."""
        pair, self._pair, self._name = self._pair, None, ""
        if pair:
            pair.__exit__(None, None, None)
