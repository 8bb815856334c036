import socket
from pathlib import Path

import pytest

from ray_serve_cai import engine_ports
from ray_serve_cai.errors import ResourceError, UsageError


@pytest.mark.parametrize(("value", "expected"), [("", (20000, 20999)), ("30000-30010", (30000, 30010)), (" 2000-2000 ", (2000, 2000))])
def test_a_range(value: str, expected: tuple[int, int]) -> None:
    assert engine_ports.parse({engine_ports.VARIABLE: value}) == expected


@pytest.mark.parametrize("value", ["20000", "a-b", "20-30", "3000-2000", "60000-70000"])
def test_what_is_no_range(value: str) -> None:
    with pytest.raises(UsageError, match=f"RSCAI_ENGINE_PORTS is '{value}'; use a range of ports, for example 20000-20999"):
        engine_ports.parse({engine_ports.VARIABLE: value})


def free(count: int) -> dict[str, str]:
    """A range of ports that nobody listens on."""
    for first in range(41000, 60000, 50):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        return {engine_ports.VARIABLE: f"{first}-{first + count - 1}"}
    raise AssertionError("no free ports")


def test_each_port_is_leased_once_until_it_is_released(tmp_path: Path) -> None:
    env = free(3)
    leases = [engine_ports.lease(env, tmp_path) for _ in range(3)]
    assert len({lease.port for lease in leases}) == 3
    with pytest.raises(ResourceError, match=r"no free port from \d+ to \d+ .*; set RSCAI_ENGINE_PORTS to a larger range"):
        engine_ports.lease(env, tmp_path)
    leases[1].release()
    again = engine_ports.lease(env, tmp_path)
    assert again.port == leases[1].port
    for lease in (again, leases[0], leases[2]):
        lease.release()


def test_a_port_in_use_is_not_leased(tmp_path: Path) -> None:
    env = free(2)
    first, last = engine_ports.parse(env)
    with socket.socket() as taken:
        taken.bind(("", first))
        taken.listen()
        lease = engine_ports.lease(env, tmp_path)
        assert lease.port == last
        lease.release()
