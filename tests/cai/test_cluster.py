"""A cluster on the emulated platform, whose applications are containers: up, serve, scale, faults, down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cai.conftest import MODEL_KEY, NODE, Site
from tests.containers import run, until
from tests.fakes.cai.platform import KEY

pytestmark = pytest.mark.issue(9)
QUESTION = "What is ray-serve-cai?"
Took = Callable[[str, float], None]


def answer(site: Site, name: str) -> str:
    said = site.ask(name)
    assert said.status_code == 200, said.text
    return str(said.json()["choices"][0]["message"]["content"])


def leaks(site: Site) -> list[str]:
    """Where a key or the cluster's token is seen that nobody should see."""
    token = site.application("m-head")["environment"]["RSCAI_TOKEN"]
    places = {"what commands print": site.said, "nodes' logs": site.logs(), "this machine's processes": run("ps", "-eo", "args").stdout}
    for path, content in site.files.items():
        places[path] = content.decode(errors="replace")
    for container in site.nodes.ids.values():
        places[f"processes of {container[:12]}"] = run("docker", "exec", container, "ps", "-eo", "args").stdout
    return [
        f"{what} in {place}"
        for place, text in places.items()
        for what, secret in (("API key", KEY), ("model key", MODEL_KEY), ("token", token))
        if secret in text
    ]


@pytest.fixture(scope="module")
def file(site: Site) -> Path:
    return site.config("m", workers={"cpu": {"count": 2, **NODE}})


def test_it_comes_up_and_answers_who_has_the_key(site: Site, file: Path, questions: dict[str, str], took: Took) -> None:
    began = time.monotonic()
    shown = site.good("up", "-f", str(file), "--timeout", "300")
    took("cai up, head and two workers, until the model answers", began)
    assert "http://m.cai.test/v1 serves demo" in shown
    assert "3 of 3 nodes" in shown
    assert answer(site, "m") == questions[QUESTION]
    assert site.ask("m", key=None).status_code == 401
    assert site.ask("m", key="another").status_code == 401
    again = site.command("plan", "-f", str(file))
    assert again.stdout.splitlines()[-1] == "nothing to do"


def test_nobody_sees_a_key_or_the_token(site: Site, file: Path) -> None:
    assert leaks(site) == []


def test_doctor_sees_nothing_wrong(site: Site, file: Path) -> None:
    findings = json.loads(site.command("doctor", "-f", str(file), "--json").stdout)
    assert [one for one in findings if one["level"] in ("error", "warning")] == []


@pytest.mark.full
def test_scaling_up_and_down(site: Site, file: Path, took: Took) -> None:
    began = time.monotonic()
    shown = site.good("scale", "-f", str(file), "cpu=3", "--timeout", "300")
    took("cai scale from two workers to three", began)
    assert "4 of 4 nodes" in shown
    began = time.monotonic()
    site.good("scale", "-f", str(file), "cpu=2", "--timeout", "300")
    took("cai scale from three workers to two", began)
    until("three nodes", lambda: site.status(file)["head"]["nodes"]["alive"] == 3, 60)


@pytest.mark.full
def test_a_worker_that_is_restarted_comes_back_at_another_address(site: Site, file: Path, took: Took) -> None:
    before = site.nodes.addresses[site.application("m-cpu-1")["id"]]
    began = time.monotonic()
    site.restart("m-cpu-1")
    after = site.nodes.addresses[site.application("m-cpu-1")["id"]]
    assert after != before
    until("it has joined", lambda: f"joined the cluster as {after}" in site.logs(), 120)
    until("three nodes", lambda: site.status(file)["head"]["nodes"]["alive"] == 3, 90)
    took("a restarted worker is back", began)


@pytest.mark.full
def test_a_head_that_is_restarted_brings_the_cluster_back_by_itself(site: Site, file: Path, questions: dict[str, str], took: Took) -> None:
    before = site.nodes.addresses[site.application("m-head")["id"]]
    began = time.monotonic()
    site.restart("m-head")
    assert site.nodes.addresses[site.application("m-head")["id"]] != before
    until("the model answers", lambda: site.ask("m").status_code == 200, 240)
    took("a restarted head's model answers", began)
    until("all nodes are back", lambda: site.status(file)["head"]["nodes"]["alive"] == 3, 120)
    took("and all nodes have joined it", began)
    assert answer(site, "m") == questions[QUESTION]


@pytest.mark.full
def test_after_all_that_nobody_has_seen_a_key(site: Site, file: Path) -> None:
    assert leaks(site) == []


def test_down_leaves_nothing(site: Site, file: Path, took: Took) -> None:
    began = time.monotonic()
    site.good("down", "-f", str(file))
    took("cai down", began)
    assert site.workspace.platform.applications == {}
    assert site.nodes.ids == {}
    assert (
        "m.address.json" not in {path.rpartition("/")[2] for path in site.files} or site.command("status", "-f", str(file)).returncode == 69
    )
    done = site.command("status", "-f", str(file))
    assert done.returncode == 69
    assert "there is no cluster 'm'" in done.stderr
