"""Expositions put together, as Prometheus's own library reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ray_serve_cai.node import exposition

pytestmark = pytest.mark.issue(10)


def made_by(number: float, *labels: str) -> str:
    """What a server's library writes."""
    registry = CollectorRegistry()
    Counter("requests", "All requests.", ["model"], registry=registry).labels(model="a,b").inc(number)
    histogram = Histogram("ttft_seconds", "Time to first token.", buckets=(1, 2), registry=registry)
    histogram.observe(number)
    gauge = Gauge("use", "Use.", list(labels), registry=registry)
    (gauge.labels(*labels) if labels else gauge).set(number)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {family.name: [(one.name, one.labels, one.value) for one in family.samples] for family in text_string_to_metric_families(text)}


def test_each_family_stands_together_and_each_sample_says_whence_it_came() -> None:
    parts = [({"node": "n1"}, made_by(1)), ({"node": "n2", "model": "m"}, made_by(2, "node"))]
    merged = exposition.merge(parts)
    assert merged.count("# TYPE requests_total counter") == 1
    found = samples(merged)
    assert [one for one in found["requests"] if one[0] == "requests_total"] == [
        ("requests_total", {"node": "n1", "model": "a,b"}, 1.0),
        ("requests_total", {"node": "n2", "model": "a,b"}, 2.0),
    ]
    assert found["use"] == [("use", {"node": "n1"}, 1.0), ("use", {"node": "node", "model": "m"}, 2.0)]
    buckets = [(one[1]["node"], one[1]["le"], one[2]) for one in found["ttft_seconds"] if one[0].endswith("bucket")]
    assert buckets == [("n1", "1.0", 1), ("n1", "2.0", 1), ("n1", "+Inf", 1), ("n2", "1.0", 0), ("n2", "2.0", 1), ("n2", "+Inf", 1)]
    families = [line.split()[2] for line in merged.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


LABELS = st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(max_size=10), max_size=3)


@given(LABELS, LABELS, st.integers(0, 10**6))
def test_any_labels(own: dict[str, str], added: dict[str, str], value: int) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", "G.", list(own), registry=registry)
    (gauge.labels(**own) if own else gauge).set(value)
    (found,) = samples(exposition.merge([(added, generate_latest(registry).decode())]))["g"]
    assert found == ("g", added | own, float(value))


@given(st.lists(st.tuples(LABELS, st.text(max_size=200)), max_size=3))
def test_what_is_no_exposition_breaks_no_other(parts: list[tuple[dict[str, str], str]]) -> None:
    merged = exposition.merge([*parts, ({"node": "n"}, "good 1\n")])
    assert 'good{node="n"} 1' in merged.split("\n")


def test_lines_that_are_left_out() -> None:
    text = "<html>\n\n# EOF\n# a remark\nname\nname{\n1 2\n"
    assert exposition.merge([({"a": "b"}, text)]) in ("", 'name{a="b",\n')


def test_our_own() -> None:
    text = exposition.gauge("rscai_x", "X.", [({"model": 'a"\\\n'}, 1), ({}, 0.5)])
    assert samples(text) == {"rscai_x": [("rscai_x", {"model": 'a"\\\n'}, 1.0), ("rscai_x", {}, 0.5)]}


def test_a_clusters_worth_takes_little() -> None:
    """Some seconds for each hundred nodes would be noticed; this is a bound, not a measurement."""
    import time

    text = "".join(f'ray_metric_{line}{{SessionName="s",WorkerId="{line}"}} {line}\n' for line in range(2000))
    start = time.process_time()
    assert exposition.merge([({"node": f"n{number}"}, text) for number in range(20)]).count("\n") == 40_000
    assert time.process_time() - start < 2
