import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.node import hostlist


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", "a"),
        ("a,b", "a b"),
        ("gpu[1-3]", "gpu1 gpu2 gpu3"),
        ("gpu[01-03,07]", "gpu01 gpu02 gpu03 gpu07"),
        ("gpu[08-11]", "gpu08 gpu09 gpu10 gpu11"),
        ("gpu[5]", "gpu5"),
        ("gpu[2,1]", "gpu2 gpu1"),
        ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
        ("r[1-2]n[3,5]-ib", "r1n3-ib r1n5-ib r2n3-ib r2n5-ib"),
        ("tux[1-2],login,gpu-[9-10].lan", "tux1 tux2 login gpu-9.lan gpu-10.lan"),
        ("[1-2]x", "1x 2x"),
        ("n[098-101]", "n098 n099 n100 n101"),
    ],
)
def test_lists(text: str, hosts: str) -> None:
    assert hostlist.expand(text) == hosts.split()


RECORDED = [
    line.split(" -> ")
    for line in (Path(__file__).parent / "environments/hostlists.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("text", "hosts"), RECORDED)
def test_lists_from_elsewhere(text: str, hosts: str) -> None:
    assert hostlist.expand(text) == hosts.split(",")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no host at ''"),
        (",a", "no host at ',a'"),
        ("a,", "no host at ''"),
        ("a,,b", "no host at ',b'"),
        ("a b", "' ' at ' b'"),
        ("gpu[1-3", "'[' at '[1-3'"),
        ("gpu1-3]", "']' at ']'"),
        ("gpu[]", "'' is no number and no range"),
        ("gpu[1-]", "'1-' is no number"),
        ("gpu[a-b]", "'a-b' is no number"),
        ("gpu[3-1]", "'3-1' runs backwards"),
        ("gpu[1-999999999]", "more than 100000 hosts"),
        ("r[1-1000]n[1-1000]", "more than 100000 hosts"),
        ("gpu[[1-2]]", "'[' at '[[1-2]]'"),
    ],
)
def test_what_is_no_list(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        hostlist.expand(text)


@given(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.integers(0, 500), st.integers(0, 40), st.integers(1, 4))
def test_a_range_has_all_its_numbers(prefix: str, first: int, more: int, width: int) -> None:
    last = first + more
    expected = [f"{prefix}{str(number).zfill(width)}" for number in range(first, last + 1)]
    assert hostlist.expand(f"{prefix}[{str(first).zfill(width)}-{last}]") == expected


@given(st.text(alphabet="a1-[],", max_size=24) | st.text(max_size=40))
def test_any_text_is_hosts_or_an_error(text: str) -> None:
    try:
        hosts = hostlist.expand(text)
    except ValueError:
        return
    assert hosts
    assert all(host and not set(host) & set("[],") for host in hosts)
