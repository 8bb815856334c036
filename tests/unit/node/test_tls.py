"""What Ray would do with the certificates, found before it starts."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ray_serve_cai.errors import TlsError, UnavailableError, UsageError
from ray_serve_cai.node import tls
from ray_serve_cai.node.address import Address
from tests.certificates import Authority

pytestmark = pytest.mark.issue(6)
IP = "10.0.0.5"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def node(authority: Authority, tmp_path: Path) -> dict[str, str]:
    """The variables of a node with a good certificate."""
    return variables(authority.issue(tmp_path / "node", IP, "fd00::5", "head"))


def variables(directory: Path) -> dict[str, str]:
    files = {tls.CERTIFICATE: "tls.crt", tls.KEY: "tls.key", tls.AUTHORITY: "ca.crt"}
    return {"RAY_USE_TLS": "1"} | {name: str(directory / file) for name, file in files.items()}


@pytest.mark.parametrize("value", ["", "0", "false", "False"])
def test_without(node: dict[str, str], value: str) -> None:
    """Certificates alone switch nothing on, as in Ray."""
    assert tls.given(node | {"RAY_USE_TLS": value}) is None
    assert tls.check(node | {"RAY_USE_TLS": value, tls.KEY: "/nowhere"}, IP) is None
    assert tls.given({}) is None


def test_a_switch_that_ray_would_not_understand(node: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="RAY_USE_TLS is 'yes'; use 1, true, 0 or false"):
        tls.given(node | {"RAY_USE_TLS": "yes"})


@pytest.mark.parametrize("name", [tls.CERTIFICATE, tls.KEY, tls.AUTHORITY])
def test_a_file_that_is_not_named(node: dict[str, str], name: str) -> None:
    with pytest.raises(UsageError, match=f"RAY_USE_TLS is '1' and {name} is not set; name the PEM file with "):
        tls.check(node | {name: " "}, IP)


@pytest.mark.parametrize("ip", [IP, "fd00::5", "fd00:0::0:5", None])
def test_a_good_certificate(node: dict[str, str], ip: str | None) -> None:
    end = tls.check(node, ip)
    assert end is not None
    assert 29 < (end - time.time()) / 86_400 < 30


def test_an_address_that_is_not_named(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"which names head, 10\.0\.0\.6, but other nodes reach this one at 10\.0\.0\.5; add that address"):
        tls.check(variables(authority.issue(tmp_path, "head", "10.0.0.6")), IP)


def test_a_file_that_is_not_there(node: dict[str, str]) -> None:
    with pytest.raises(TlsError, match="^RAY_TLS_CA_CERT is '/nowhere/ca.crt': No such file or directory; mount the certificate of"):
        tls.check(node | {tls.AUTHORITY: "/nowhere/ca.crt"}, IP)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights away")
def test_a_key_that_is_not_readable(node: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o711)
    Path(node[tls.KEY]).chmod(0o600)
    request.getfixturevalue("without_rights")
    with pytest.raises(TlsError, match="^RAY_TLS_SERVER_KEY is .*: Permission denied; mount its private key there, readable for uid"):
        tls.check(node, IP)


@pytest.mark.parametrize("name", [tls.CERTIFICATE, tls.KEY, tls.AUTHORITY])
def test_a_file_that_holds_something_else(node: dict[str, str], name: str) -> None:
    Path(node[name]).write_text("hello")
    with pytest.raises(TlsError, match=f"^{name} is .*, which is no PEM file with "):
        tls.check(node, IP)


@pytest.mark.parametrize("name", [tls.CERTIFICATE, tls.AUTHORITY])
def test_a_certificate_that_is_broken(node: dict[str, str], name: str) -> None:
    Path(node[name]).write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n")
    with pytest.raises(TlsError, match=name):
        tls.check(node, IP)


def test_the_key_of_another_certificate(authority: Authority, node: dict[str, str], tmp_path: Path) -> None:
    other = variables(authority.issue(tmp_path / "other", IP))
    with pytest.raises(TlsError, match=r"^RAY_TLS_SERVER_KEY is .*, which does not go with RAY_TLS_SERVER_CERT .*KEY_VALUES_MISMATCH"):
        tls.check(node | {tls.KEY: other[tls.KEY]}, IP)


def test_a_certificate_that_has_expired(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(
        TlsError, match=r"^RAY_TLS_SERVER_CERT is .*: certificate has expired; give this node a certificate that is valid now"
    ):
        tls.check(variables(authority.issue(tmp_path, IP, days=-0.02)), IP)


def test_a_certificate_of_another_authority(node: dict[str, str], tmp_path: Path) -> None:
    other = variables(Authority().issue(tmp_path / "other", IP))
    with pytest.raises(TlsError, match=r"^RAY_TLS_SERVER_CERT is .*: .*; give this node .* signed by RAY_TLS_CA_CERT"):
        tls.check(node | {tls.AUTHORITY: other[tls.AUTHORITY]}, IP)


@pytest_asyncio.fixture
async def port(authority: Authority, tmp_path: Path) -> AsyncIterator[int]:
    """A head's Ray, which asks for certificates as gRPC does, and answers what begins as HTTP/2."""
    issued = authority.issue(tmp_path / "head", "127.0.0.1", "*.localdomain", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued / "tls.crt", issued / "tls.key")
    context.load_verify_locations(issued / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readexactly(24)).startswith(b"PRI * HTTP/2.0")
        writer.write(b"settings")
        writer.close()

    async with await asyncio.start_server(serve, "0.0.0.0", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_head_takes_this_node(node: dict[str, str], port: int, host: str) -> None:
    await tls.greet(node, Address(host, port))
    await tls.greet({}, Address("nobody"))  # without TLS there is nobody to greet


async def test_the_head_refuses_this_node(node: dict[str, str], port: int, tmp_path: Path) -> None:
    other = variables(Authority().issue(tmp_path / "other", IP))
    with pytest.raises(TlsError, match=rf"^the head at 127.0.0.1:{port} refuses this node's certificate \(.*\); give all nodes"):
        await tls.greet(other | {tls.AUTHORITY: node[tls.AUTHORITY]}, Address("127.0.0.1", port))


async def test_this_node_refuses_the_head(node: dict[str, str], port: int, tmp_path: Path) -> None:
    other = variables(Authority().issue(tmp_path / "other", IP))
    with pytest.raises(TlsError, match=r"has a certificate that this node refuses \(.*\); give all nodes certificates of one authority"):
        await tls.greet(node | {tls.AUTHORITY: other[tls.AUTHORITY]}, Address("127.0.0.1", port))


async def test_the_heads_certificate_has_another_name(node: dict[str, str], port: int) -> None:
    with pytest.raises(TlsError, match=r"names 127.0.0.1, \*.localdomain, localhost, but this node reaches it as 127.1.1.1; add that"):
        await tls.greet(node, Address("127.1.1.1", port))


async def test_no_ray_at_the_head(node: dict[str, str], free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "GREETING_S", 0.05)
    with pytest.raises(UnavailableError, match=f"^no TLS at 127.0.0.1:{free_port} after 0 s: "):
        await tls.greet(node, Address("127.0.0.1", free_port))


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("head", True),
        ("HEAD.", True),
        ("a.svc", True),
        ("a.b.svc", False),
        ("svc", False),
        ("10.0.0.5", True),
        ("10.0.0.6", False),
        ("fd00::5", True),
    ],
)
def test_names(host: str, named: bool) -> None:
    assert tls._is_named(host, ["Head", "*.svc", "10.0.0.5", "FD00:0:0:0:0:0:0:5"]) is named
