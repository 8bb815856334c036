"""Grafana's dashboard and its table, for docs/generate.py: what an operator looks at, and the query for each."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Panel(NamedTuple):
    """One graph; ``queries`` are pairs of a legend and PromQL, ``unit`` is Grafana's."""

    title: str
    meaning: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def _engines(vllm: str, sglang: str = "") -> str:
    return f'{{__name__=~"vllm:{vllm}|sglang:{sglang or vllm}"}}'


def _quantile(share: float, name: str) -> str:
    buckets = _engines(f"{name}_bucket")
    return f"histogram_quantile({share}, sum by (model, le) (rate({buckets}[5m])))"


_ANSWERS = 'haproxy_backend_http_responses_total{haproxy="front door",model!=""}'
_FAILED = 'haproxy_backend_http_responses_total{haproxy="front door",model!="",code="5xx"}'

_BY_CODE = f"sum by (model, code) (rate({_ANSWERS}[5m]))"
_GAP = "inter_token_latency_seconds"

PANELS = (
    Panel("Nodes", "Nodes that the head counts", "short", (("alive", "sum(rscai_node_alive)"), ("expected", "max(rscai_nodes_expected)"))),
    Panel("Models", "1: the model answers", "short", (("{{model}}", "min by (model) (rscai_model_ready)"),)),
    Panel(
        "Requests",
        "Answers of each model at the front door",
        "reqps",
        (("{{model}} {{code}}", _BY_CODE),),
    ),
    Panel(
        "Errors",
        "Share of 5xx among a model's answers",
        "percentunit",
        (("{{model}}", f"sum by (model) (rate({_FAILED}[5m])) / sum by (model) (rate({_ANSWERS}[5m]))"),),
    ),
    Panel(
        "Time to first token",
        "As the engine sees it",
        "s",
        (
            ("{{model}} p50", _quantile(0.5, "time_to_first_token_seconds")),
            ("{{model}} p95", _quantile(0.95, "time_to_first_token_seconds")),
        ),
    ),
    Panel(
        "Inter-token latency",
        "From one token to the next",
        "s",
        (
            ("{{model}} p50", _quantile(0.5, _GAP)),
            ("{{model}} p95", _quantile(0.95, _GAP)),
        ),
    ),
    Panel(
        "Tokens",
        "Generated each second",
        "short",
        (("{{model}}", f"sum by (model) (rate({_engines('generation_tokens_total')}[5m]))"),),
    ),
    Panel(
        "Queue",
        "Requests in the engine",
        "short",
        (
            ("{{model}} running", f"sum by (model) ({_engines('num_requests_running', 'num_running_reqs')})"),
            ("{{model}} waiting", f"sum by (model) ({_engines('num_requests_waiting', 'num_queue_reqs')})"),
        ),
    ),
    Panel(
        "KV cache",
        "Share in use, of the fullest replica",
        "percentunit",
        (("{{model}}", f"max by (model) ({_engines('kv_cache_usage_perc', 'token_usage')})"),),
    ),
    Panel(
        "Prefix cache",
        "Share of prompt tokens found in it",
        "percentunit",
        (
            (
                "{{model}}",
                "sum by (model) (rate(vllm:prefix_cache_hits_total[5m])) / sum by (model) (rate(vllm:prefix_cache_queries_total[5m])) "
                "or max by (model) (sglang:cache_hit_rate)",
            ),
        ),
    ),
    Panel(
        "GPUs",
        "Use of each node's, in percent; 0 where there are none",
        "percent",
        (("{{node}}", "avg by (node) (ray_node_gpus_utilization) or 0 * max by (node) (rscai_node_alive)"),),
    ),
    Panel(
        "GPU memory",
        "In use on each node, MiB",
        "decmbytes",
        (("{{node}}", "sum by (node) (ray_node_gram_used) or 0 * max by (node) (rscai_node_alive)"),),
    ),
    Panel("CPUs", "Use of each node's, in percent", "percent", (("{{node}}", "max by (node) (ray_node_cpu_utilization)"),)),
    Panel(
        "Memory",
        "Share in use on each node",
        "percentunit",
        (("{{node}}", "max by (node) (ray_node_mem_used) / max by (node) (ray_node_mem_total)"),),
    ),
    Panel(
        "Replica starts",
        "Of each model in 15 minutes; none but after updates and faults",
        "short",
        (("{{application}}", "sum by (application) (increase(ray_serve_deployment_replica_starts_total[15m]))"),),
    ),
    Panel(
        "Gateway",
        "Answers that went through it, of several models",
        "reqps",
        (
            (
                "{{code}}",
                'sum by (code) (rate(haproxy_backend_http_responses_total{haproxy="front door",proxy="gateway"}[5m])) or vector(0)',
            ),
        ),
    ),
)
WIDTH, HEIGHT = 8, 7


def document() -> dict[str, Any]:
    """The dashboard as Grafana reads it (grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model)."""
    return {
        "uid": "ray-serve-cai",
        "title": "ray-serve-cai",
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": []},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    targets = [{"refId": chr(65 + place), "legendFormat": said, "expr": query} for place, (said, query) in enumerate(panel.queries)]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def text() -> str:
    """The file."""
    return json.dumps(document(), indent=1) + "\n"
