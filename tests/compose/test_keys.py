"""API keys on a cluster: what each opens, and how they change while it serves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.containers import IMAGE, Cluster, Load, Node, run, until

pytestmark = pytest.mark.issue(10)
QUESTION = "What is ray-serve-cai?"


class Ring:
    """A directory with a file of keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys: dict[str, str] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        directory.chmod(0o755)

    def add(self, name: str, *rights: str) -> None:
        """With the command that a user has for it."""
        made = json.loads(run("docker", "run", "--rm", IMAGE, "key", name, "--json", *rights).stdout)
        self.keys[name], self._entries[name] = made["key"], made["entry"]

    def drop(self, name: str) -> None:
        del self._entries[name]

    def write(self) -> None:
        """As editors do."""
        new = self.directory / "keys.yaml.new"
        new.write_text(yaml.safe_dump(list(self._entries.values())))
        new.chmod(0o644)
        os.replace(new, self.directory / "keys.yaml")


class Guarded:
    """A node whose models take keys."""

    def __init__(self, node: Node | Cluster, ring: Ring) -> None:
        self.node, self.ring, self.url = node, ring, node.api.url

    def ask(self, path: str, name: str | None, body: object | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.ring.keys[name]}"} if name else {}
        return httpx.request("POST" if body is not None else "GET", self.url + path, headers=headers, json=body, timeout=60)

    def status(self, path: str, name: str | None, body: object | None = None) -> int:
        return self.ask(path, name, body).status_code


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    ring = Ring(tmp_path_factory.mktemp("keys"))
    ring.add("alice")
    ring.add("ops", "--admin")
    ring.add("other", "--models", "b")
    ring.add("slow", "--requests-per-minute", "2")
    ring.write()
    models = tmp_path_factory.mktemp("models") / "models.yaml"
    models.write_text(yaml.safe_dump({"models": [{"name": name, "source": "demo"} for name in "ab"]}))
    models.chmod(0o644)
    env = {"RSCAI_CONFIG": "/config.yaml", "RSCAI_API_KEYS_FILE": "/keys/keys.yaml"}
    volumes = [(str(models), "/config.yaml", "ro"), (str(ring.directory), "/keys", "ro")]
    with Node(IMAGE, env=env, volumes=volumes, shm_size="1g") as node:
        node.api.wait_ready()
        yield Guarded(node, ring)


BODY = {"model": "a", "prompt": "a", "max_tokens": 1}
OTHERS = {**BODY, "model": "b"}


def test_what_each_key_opens(guarded: Guarded) -> None:
    for path, body in (("/v1/models", None), ("/v1/completions", BODY), ("/models/a/v1/completions", BODY), ("/models/b/metrics", None)):
        assert guarded.status(path, None, body) == 401
    assert guarded.status("/health", None) == 200
    for path, body in (("/v1/completions", BODY), ("/models/b/v1/completions", OTHERS), ("/tokenize", {"model": "b", "prompt": "a"})):
        assert guarded.status(path, "alice", body) == 200, path
    for path in ("/metrics", "/models/b/metrics", "/sleep", "/api/v1/cluster"):
        assert guarded.status(path, "alice") == 403, path
    told = guarded.ask("/metrics", "ops").text
    for model in "ab":
        assert f'rscai_model_ready{{model="{model}",engine="vllm"}} 1' in told
        assert f'vllm:num_requests_running{{model="{model}",' in told
    assert guarded.status("/models/b/metrics", "ops") == 200
    assert [guarded.status("/v1/completions", "other", body) for body in (BODY, OTHERS)] == [403, 200]
    assert guarded.status("/models/a/v1/completions", "other", BODY) == 403
    long = {**BODY, "user": "x" * 70_000}  # through the gateway
    assert [guarded.status("/v1/completions", name, long) for name in ("alice", "other")] == [200, 403]
    assert [one["id"] for one in guarded.ask("/v1/models", "other").json()["data"]] == ["b"]
    assert [one["id"] for one in guarded.ask("/v1/models", "alice").json()["data"]] == ["a", "b"]
    assert [guarded.status("/v1/completions", "slow", BODY) for _ in range(3)] == [200, 200, 429]


def test_openais_errors(guarded: Guarded) -> None:
    def client(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0)

    with pytest.raises(openai.AuthenticationError, match="An API key is needed"):
        client("sk-of-nobody").models.list()
    with pytest.raises(openai.PermissionDeniedError, match="may not do that") as raised:
        client(guarded.ring.keys["other"]).completions.create(model="a", prompt="a")
    assert raised.value.request_id


def test_keys_change_while_it_serves(guarded: Guarded) -> None:
    ring = guarded.ring
    ring.add("late")
    assert guarded.status("/v1/completions", "late", BODY) == 401
    ring.drop("slow")
    ring.write()
    until("the new key opens", lambda: guarded.status("/v1/completions", "late", BODY) == 200, 10)
    assert guarded.status("/v1/completions", "slow", BODY) == 401
    (ring.directory / "keys.yaml").write_text("- name: broken")
    until("it says so", lambda: "the API keys stay as they were: /keys/keys.yaml: [0]: give either key or sha256" in logs(guarded), 10)
    assert guarded.status("/v1/completions", "late", BODY) == 200
    ring.write()


def test_no_key_is_in_a_log_or_a_file(guarded: Guarded) -> None:
    assert isinstance(guarded.node, Node)
    found = guarded.node.exec("grep", "-rlF", "sk-rscai-", "/tmp", "/var/lib/ray-serve-cai", check=False)
    assert (found.stdout, "sk-rscai-" in logs(guarded)) == ("", False)
    environments = guarded.node.exec("sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline", check=False).stdout
    assert "sk-rscai-" not in environments


def logs(guarded: Guarded) -> str:
    return guarded.node.logs()


@pytest.mark.full
def test_rotation_under_load(tmp_path: Path) -> None:
    """Keys come and go every second; whoever stays is never turned away, with the compose file of the documentation."""
    ring = Ring(tmp_path)
    ring.add("alice")
    ring.write()
    with Cluster(1, "compose/keys.yaml", KEYS_DIR=str(tmp_path)) as cluster:
        cluster.api.wait_ready()
        guarded = Guarded(cluster, ring)
        assert guarded.status("/v1/models", None) == 401
        with KeyedLoad(cluster.api, 4, {}, ring.keys["alice"]) as load:
            for number in range(10):
                ring.add(f"new-{number}")
                ring.write()
                until("the new key opens", lambda name=f"new-{number}": guarded.status("/v1/models", name) == 200, 10)  # type: ignore[misc]
                ring.drop(f"new-{number}")
            time.sleep(1)
    assert load.failures == []
    assert load.done > 20


class KeyedLoad(Load):
    """Load with a key."""

    def __init__(self, api: Any, clients: int, questions: dict[str, str], key: str) -> None:
        super().__init__(api, clients, questions)
        self._key = key

    def _ask(self, client: httpx.Client, number: int, *, stream: bool) -> str:
        client.headers["Authorization"] = f"Bearer {self._key}"
        return super()._ask(client, number, stream=stream)


@pytest.mark.full
def test_what_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "keys.yaml"
    file.write_text("- {name: a, key: a-key-for-no-model-at-all, models: [none]}")
    file.chmod(0o644)
    mounted = ("docker", "run", "--rm", "-v", f"{tmp_path}:/keys:ro", "-e", "RSCAI_API_KEYS_FILE=/keys/keys.yaml")
    done = run(*mounted, IMAGE, check=False)
    assert (done.returncode, "API key 'a' is for model 'none', which is not served; there are: demo." in done.stderr) == (78, True)
    done = run(*mounted, "-e", "VLLM_API_KEY=x", IMAGE, check=False)
    assert (done.returncode, "RSCAI_API_KEYS_FILE and VLLM_API_KEY are both set" in done.stderr) == (64, True)
