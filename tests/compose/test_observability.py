"""The cluster's metrics in a real Prometheus (Debian's package): every panel of the dashboard has data, every rule is one."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers import IMAGE, ROOT, Cluster, free_port, run, until

pytestmark = pytest.mark.issue(10)
FILES = ROOT / "compose/observability"
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = yaml.safe_load((FILES / "rules.yaml").read_text())["groups"][0]["rules"]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with prometheus and promtool, unpacked and not installed."""
    directory = tmp_path_factory.mktemp("prometheus")
    fetched = subprocess.run(["apt-get", "download", "prometheus"], cwd=directory, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.fail(f"Debian's package of Prometheus cannot be had: {fetched.stderr}")
    (package,) = directory.glob("prometheus_*.deb")
    run("dpkg", "-x", str(package), str(directory))
    return directory / "usr/bin"


def configured(directory: Path, port: int) -> Path:
    """Our configuration for a head on loopback, asked more often; nothing else is changed."""
    given = yaml.safe_load((FILES / "prometheus.yaml").read_text())
    given["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    given["scrape_configs"][0] |= {"scrape_timeout": "2s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(given))
    (directory / "rules.yaml").write_text((FILES / "rules.yaml").read_text())
    (directory / "key").write_text((FILES / "no-key").read_text())
    return directory / "prometheus.yaml"


def test_promtool_takes_rules_and_configuration(tools: Path, tmp_path: Path) -> None:
    done = run(str(tools / "promtool"), "check", "rules", str(FILES / "rules.yaml"))
    assert f"SUCCESS: {len(ALERTS)} rules found" in done.stdout
    run(str(tools / "promtool"), "check", "config", str(configured(tmp_path, 8000)))


def test_compose_publishes_on_loopback_alone() -> None:
    merged = run("docker", "compose", "-f", "compose/cpu.yaml", "-f", "compose/observability.yaml", "config", "--format", "json").stdout
    services = json.loads(merged)["services"]
    for name in ("prometheus", "grafana"):
        assert {port["host_ip"] for port in services[name]["ports"]} == {"127.0.0.1"}
        for volume in services[name]["volumes"]:
            assert volume["type"] == "volume" or Path(volume["source"]).is_file()
    published = [port["target"] for service in services.values() for port in service.get("ports", [])]
    assert not {6384, 8404, 9101} & set(published)


class Prometheus:
    """A running one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


@pytest.fixture(scope="module")
def watched(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Prometheus]]:
    """A cluster of two nodes under a little load, and a Prometheus that watches it."""
    directory = tmp_path_factory.mktemp("watching")
    with Cluster(1) as cluster:
        cluster.api.wait_ready()
        port = free_port()
        file = configured(directory, cluster.port)
        line = [
            str(tools / "prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(line, stdout=log, stderr=log)
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            until("it scrapes", lambda: prometheus.ask("rscai_model_ready == 1"), 30)

            def data_in_every_panel() -> bool:
                cluster.api.ask("What is ray-serve-cai?")
                assert without_data(prometheus) == []
                return True

            until("every panel has data", data_in_every_panel, 60, 2)
            yield cluster, prometheus
        finally:
            process.terminate()
            process.wait(20)


def without_data(prometheus: Prometheus) -> list[str]:
    return [f"{title}: {query}" for title, query in QUERIES if not prometheus.ask(query)]


@pytest.mark.full
def test_every_panel_has_data(watched: tuple[Cluster, Prometheus]) -> None:
    assert without_data(watched[1]) == []


@pytest.mark.full
def test_what_the_queries_say(watched: tuple[Cluster, Prometheus]) -> None:
    _, prometheus = watched
    assert prometheus.ask("sum(rscai_node_alive)")[0]["value"][1] == "2"
    assert {one["metric"]["model"] for one in prometheus.ask("vllm:generation_tokens_total > 0")} == {"demo"}
    assert len({one["metric"]["node"] for one in prometheus.ask("ray_node_cpu_count")}) == 2
    assert prometheus.ask("min(rscai_source_up)")[0]["value"][1] == "1"
    assert prometheus.ask('sum(haproxy_backend_http_responses_total{haproxy="front door",model="demo",code="2xx"})')[0]["value"][1] != "0"


@pytest.mark.full
@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_a_rule_can_be_asked_and_is_silent(watched: tuple[Cluster, Prometheus], alert: str) -> None:
    (query,) = (rule["expr"] for rule in ALERTS if rule["alert"] == alert)
    assert watched[1].ask(query) == []


@pytest.mark.full
def test_a_lost_worker_is_seen(watched: tuple[Cluster, Prometheus]) -> None:
    """Last of all; what its node told is gone, and the rule for it speaks."""
    cluster, prometheus = watched
    (query,) = (rule["expr"] for rule in ALERTS if rule["alert"] == "NodesAreMissing")
    cluster.compose("kill", "worker")
    until("the rule speaks", lambda: prometheus.ask(query), 90)
    cluster.compose("start", "worker")
    cluster.api.wait_ready()


@pytest.mark.full
def test_scraping_costs_little() -> None:
    """CPU time of a whole node with one scrape each second, and without: fifteen times less often it must stay under 1 % of a core."""
    from tests.containers import Node

    read = ("sh", "-c", "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage")

    def cpu_s() -> float:
        told = node.exec(*read).stdout
        return int(told.split()[1]) / 1e6 if told.startswith("usage_usec") else int(told) / 1e9

    with Node(IMAGE, shm_size="1g") as node:
        node.api.wait_ready()
        time.sleep(15)  # what Ray does after a start
        spent = {"idle": 0.0, "scraped": 0.0}
        for _ in range(3):
            for which in spent:
                before, end = cpu_s(), time.monotonic() + 15
                while time.monotonic() < end:
                    if which == "scraped":
                        assert node.api.get("/metrics").status_code == 200
                    time.sleep(1.1)
                spent[which] += cpu_s() - before
        for_each = (spent["scraped"] - spent["idle"]) / (3 * 15 / 1.1)
        print(f"idle {spent['idle'] / 45:.3f} cores, a scrape {1000 * for_each:.0f} ms, every 15 s {100 * for_each / 15:.2f} % of a core")
        assert for_each / 15 < 0.01
