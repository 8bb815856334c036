"""compose/airgapped-cpu.yaml: nothing gets out of the nodes, and the front door answers this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.containers import IMAGE, Cluster, run
from tests.machines import answers

pytestmark = [pytest.mark.issue(6), pytest.mark.full]
HERE, OUTSIDE = "198.51.100.1", "198.51.100.2"
ASK = f"""
import urllib.request
try:
    print(urllib.request.urlopen("http://{OUTSIDE}:8080/", timeout=5).status)
except OSError as error:
    print("not reached:", error)
"""


@pytest.fixture
def outside() -> Iterator[None]:
    """A web server on another machine: a network namespace, which knows its neighbour and none of the networks behind it."""
    name = "rscai-outside"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", "rscai0", "type", "veth", "peer", "name", "rscai1", "netns", name)
        run("ip", "address", "add", f"{HERE}/24", "dev", "rscai0")
        run("ip", "link", "set", "rscai0", "up")
        run("ip", "-n", name, "address", "add", f"{OUTSIDE}/24", "dev", "rscai1")
        run("ip", "-n", name, "link", "set", "rscai1", "up")
        web = ["ip", "netns", "exec", name, sys.executable, "-m", "http.server", "8080", "--directory", "/usr/share/doc"]
        with subprocess.Popen(web, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            yield
            server.terminate()
    finally:
        run("ip", "netns", "delete", name)


@pytest.mark.usefixtures("outside")
def test_nothing_gets_out(questions: dict[str, str]) -> None:
    plain = run("docker", "run", "--rm", "--entrypoint", "python3", IMAGE, "-c", ASK).stdout
    assert plain == "200\n"  # as any other container reaches it
    with Cluster(1, "compose/airgapped-cpu.yaml", SUBNET="172.29.245.0/24") as cluster:
        answers(cluster.api, questions)
        assert cluster.api.health()["nodes"]["alive"] == 2
        for service in ("worker", "head"):
            said = run("docker", "exec", cluster.ids(service)[0], "python3", "-c", ASK).stdout
            assert said.startswith("not reached: "), f"{service}: {said}"
