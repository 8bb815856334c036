import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import address
from ray_serve_cai.node.address import Address, bracketed, everywhere, literal_ip, loopback


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("head", "head", 6379),
        ("head:7000", "head", 7000),
        ("head.svc.cluster.local.:7000", "head.svc.cluster.local.", 7000),
        ("my_head", "my_head", 6379),
        ("10.0.0.1", "10.0.0.1", 6379),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("10.0.0.1:65535", "10.0.0.1", 65535),
        ("::1", "::1", 6379),
        ("fd00:0:0::0001", "fd00::1", 6379),
        ("[::1]", "::1", 6379),
        ("[FD00::1]:7000", "fd00::1", 7000),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", 6379),
    ],
)
def test_what_is_an_address(value: str, host: str, port: int) -> None:
    parsed = address.parse("X", value)
    assert parsed.port == port
    assert parsed.host == (str(ipaddress.ip_address(host)) if ":" in host else host)


def test_the_default_port_can_be_another() -> None:
    assert address.parse("X", "head", 5).port == 5


@pytest.mark.parametrize(
    "value",
    ["", ":", ":6379", "head:", "head:x:y", "[::1", "[::1]x", "[::1]:", "[head]:5", "[]", "a b", "head/x", "-head", "é",
     "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.4.", "1:2:3", "x" * 300],
)  # fmt: skip
def test_what_is_no_address(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        address.parse("RSCAI_HEAD_ADDRESS", value)
    for part in ("RSCAI_HEAD_ADDRESS", repr(value), "use host or host:port", "[fd00::1]:6379"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["http://head", "https://head"])
def test_a_url_is_no_address(value: str) -> None:
    with pytest.raises(UsageError, match="use host or host:port"):
        address.parse("RSCAI_HEAD_ADDRESS", value)


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "+5", "1.5", "٣", "000000001"])
@pytest.mark.parametrize("host", ["head", "[::1]"])
def test_what_is_no_port(host: str, port: str) -> None:
    with pytest.raises(UsageError) as caught:
        address.parse("X", f"{host}:{port}")
    assert f"{port!r} is no port; use 1 to 65535" in str(caught.value)


@pytest.mark.parametrize(("host", "shown"), [("head", "head:5"), ("10.0.0.1", "10.0.0.1:5"), ("::1", "[::1]:5")])
def test_how_an_address_is_shown(host: str, shown: str) -> None:
    assert str(Address(host, 5)) == shown
    assert bracketed(host) == shown.removesuffix(":5")


@pytest.mark.parametrize(("host", "expected"), [("10.0.0.1", "10.0.0.1"), ("FD00:0::1", "fd00::1"), ("head", None), ("", None)])
def test_literals(host: str, expected: str | None) -> None:
    assert literal_ip(host) == expected


@pytest.mark.parametrize("host", ["fe80::1%eth0", "::1%a\nglobal"])
def test_a_zone_is_not_supported(host: str) -> None:
    assert literal_ip(host) is None


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: any(char.isalpha() for char in name))
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)


@given(HOSTS, st.integers(1, 65535))
def test_round_trip(host: str, port: int) -> None:
    one = Address(host, port)
    assert address.parse("X", str(one)) == one
    assert address.parse("X", bracketed(host), port) == one
    assert address.parse("X", host, port) == one


@given(st.ip_addresses(v=6))
def test_all_spellings_of_an_ip_are_one(ip: ipaddress.IPv6Address) -> None:
    assert address.parse("X", f"[{ip.exploded}]:5") == address.parse("X", f"[{ip.compressed}]:5")


@given(st.text() | st.from_regex(r"[\[\]:.0-9a-f]{0,20}", fullmatch=True))
def test_any_text_is_an_address_or_a_usage_error(value: str) -> None:
    try:
        parsed = address.parse("X", value)
    except UsageError as error:
        assert "X is " in str(error)  # noqa: PT017
    else:
        assert address.parse("X", str(parsed)) == parsed


@pytest.mark.parametrize(
    ("ip", "listens", "asks"), [("10.0.0.1", "0.0.0.0", "127.0.0.1"), (None, "0.0.0.0", "127.0.0.1"), ("fd00::1", "::", "127.0.0.1")]
)
def test_listening_for_other_nodes(ip: str | None, listens: str, asks: str) -> None:
    assert everywhere(ip) == listens
    assert loopback(everywhere(ip)) == asks
    assert loopback("10.0.0.1") == "10.0.0.1"
