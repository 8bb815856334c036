"""The fixed port plan of a node: every port that Ray, Serve and the launcher listen on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ray_serve_cai.node.address import GCS_PORT


@dataclass(frozen=True)
class Ports:
    """TCP ports; ``*_first`` and ``*_last`` bound a range.

    Ports of direct ingress (30000-31000, 40000-41000) are Serve's own defaults and are opened per replica.
    """

    front_door: int = 8000
    serve_http: int = 8001
    status: int = 8002
    gcs: int = GCS_PORT
    node_manager: int = 6380
    object_manager: int = 6381
    runtime_env_agent: int = 6382
    dashboard_agent_grpc: int = 6383
    dashboard_agent_http: int = 52365
    metrics_export: int = 6384
    ray_client: int = 10001
    dashboard: int = 8265
    haproxy_metrics: int = 9101
    haproxy_stats: int = 8404
    serve_fallback: int = 8500
    autoscaler_metrics: int = 44217
    dashboard_metrics: int = 44227
    workers_first: int = 10002
    workers_last: int = 10999

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def single(self) -> dict[str, int]:
        """All but the range of worker ports."""
        return {name: port for name, port in self.as_dict().items() if name not in ("workers_first", "workers_last")}

    def listening(self, role: str) -> dict[str, int]:
        """The single ports that must be free before a node of this role starts; Ray goes on without those of its metrics."""
        elsewhere = ("front_door", "gcs", "ray_client", "dashboard") if role == "worker" else ()
        skipped = (*elsewhere, "autoscaler_metrics", "dashboard_metrics")
        return {name: port for name, port in self.single().items() if name not in skipped}
