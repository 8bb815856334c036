import pytest

from ray_serve_cai.node.ports import Ports


def test_the_contracts_ports() -> None:
    ports = Ports()
    assert (ports.front_door, ports.serve_http, ports.status, ports.gcs) == (8000, 8001, 8002, 6379)


def test_all_ports_differ() -> None:
    ports = Ports().as_dict()
    assert len(set(ports.values())) == len(ports)


def test_no_single_port_lies_in_a_range() -> None:
    ports = Ports()
    ranges = [range(ports.workers_first, ports.workers_last + 1), range(30000, 31001), range(40000, 41001), range(32768, 61000)]
    inside = {name for name, port in ports.listening("head").items() if any(port in taken for taken in ranges)}
    assert inside == {"dashboard_agent_http"}  # Ray's own default, in the ephemeral range


@pytest.mark.parametrize(
    ("role", "absent"),
    [("head", set()), ("single", set()), ("worker", {"front_door", "gcs", "ray_client", "dashboard"})],
)
def test_what_each_role_listens_on(role: str, absent: set[str]) -> None:
    every = set(Ports().as_dict()) - {"workers_first", "workers_last", "autoscaler_metrics", "dashboard_metrics"}
    assert set(Ports().listening(role)) == every - absent
