"""compose/tls.yaml: TLS between the nodes of a cluster, and what happens to a node that has none, or no usable certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.containers import IMAGE, ROOT, Api, run, until
from tests.machines import TOKEN, Machine, answers, docker_network, joined, refused

pytestmark = [pytest.mark.issue(6), pytest.mark.full]
NET = "172.29.246"
SPANNING = {"CONFIG": str(ROOT / "configs/across_nodes.yaml"), "DRAIN_S": "10"}


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    with docker_network("--subnet", f"{NET}.0/24") as name:
        yield name


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def directory(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate for whatever addresses Docker gives to the nodes."""
    made = tmp_path_factory.mktemp("tls")
    for parent in (made, *made.parents[:-1]):
        parent.chmod(parent.stat().st_mode | 0o711)
    return authority.issue(made / "node", *(f"{NET}.{number}" for number in range(2, 9)))


@pytest.fixture(scope="module")
def head(network: str, directory: Path) -> Iterator[Machine]:
    with Machine("head", "models", "tls", network=network, TLS_DIR=str(directory), BIND="0.0.0.0", **SPANNING) as made:
        yield made


def handshake(address: str, directory: Path, *, own: bool) -> str:
    """The name in the certificate of Ray's control service, or why there is none."""
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    if own:
        context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    try:
        with (
            socket.create_connection((address, 6379), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=address) as secure,
        ):
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            if not secure.recv(1):  # a client is refused after the handshake
                return "closed"
            return str(dict(part[0] for part in secure.getpeercert()["subject"])["commonName"])  # type: ignore[index, misc]
    except (ssl.SSLError, ConnectionError) as error:
        return f"closed: {error}"


def test_a_replica_over_two_nodes(head: Machine, network: str, directory: Path, questions: dict[str, str]) -> None:
    """Ray, Serve, the launcher's own commands and the ranks of a replica, with TLS and the token."""
    address = head.ip()
    with Machine("worker", "tls", network=network, TLS_DIR=str(directory), HEAD_ADDRESS=address, DRAIN_S="10") as worker:
        joined(worker)
        answers(Api(8000, host=address), questions)
        assert handshake(address, directory, own=True) == "node"
        assert handshake(address, directory, own=False).startswith("closed")
        doctor = worker.exec("ray-serve-cai", "doctor").stdout
        assert "TLS         the certificate is valid for 29 days more" in doctor
        run("docker", "stop", "--time", "60", worker.id)
        assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", worker.id).stdout.strip() == "0"
        assert "did not take the drain request" not in worker.logs()


def test_a_worker_without_tls_is_refused(head: Machine, network: str) -> None:
    with Machine("worker", network=network, HEAD_ADDRESS=head.ip()) as worker:
        refused(worker, "the head uses TLS and this node does not; set RAY_USE_TLS=1 and certificates on all nodes, or on none.")


def test_a_worker_with_tls_is_refused_by_a_head_without(network: str, directory: Path) -> None:
    with (
        Machine("head", network=network) as plain,
        Machine("worker", "tls", network=network, TLS_DIR=str(directory), HEAD_ADDRESS=plain.ip()) as worker,
    ):
        refused(worker, "this node uses TLS and the head does not; set RAY_USE_TLS=1 and certificates on all nodes, or on none.")


def test_a_certificate_for_another_address(head: Machine, network: str, authority: Authority, directory: Path) -> None:
    """It would be let in by the launcher, and then no other node could reach its Ray."""
    other = authority.issue(directory.parent / "other", "192.0.2.1")
    with Machine("worker", "tls", network=network, TLS_DIR=str(other), HEAD_ADDRESS=head.ip()) as worker:
        until("it says so", lambda: "which names 192.0.2.1, but other nodes reach this one at " in worker.logs(), 60)
        assert worker.health().get("phase") != "joined"


def test_a_certificate_of_another_authority(head: Machine, network: str, directory: Path) -> None:
    """Ray alone would try again for ever."""
    address = head.ip()
    other = Authority().issue(directory.parent / "stranger", *(f"{NET}.{number}" for number in range(2, 9)))
    with Machine("worker", "tls", network=network, TLS_DIR=str(other), HEAD_ADDRESS=address) as worker:
        refused(worker, f"the head at {address}:6379 has a certificate that this node refuses (")


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("unreadable", 78, "RAY_TLS_SERVER_KEY is '/tls/tls.key': Permission denied; mount its private key there, readable for uid 1000."),
        ("expired", 78, "RAY_TLS_SERVER_CERT is '/tls/tls.crt': certificate has expired; give this node a certificate that is valid now"),
        ("missing", 78, "RAY_TLS_CA_CERT is '/tls/ca.crt': No such file or directory; mount the certificate of the authority"),
        ("not named", 64, "RAY_USE_TLS is '1' and RAY_TLS_SERVER_KEY is not set; name the PEM file with its private key."),
    ],
)
def test_a_certificate_that_cannot_be_used(authority: Authority, directory: Path, fault: str, code: int, said: str) -> None:
    """Found before Ray is started, with the code of a typed error."""
    made = authority.issue(directory.parent / fault.replace(" ", "-"), "127.0.0.1", days=-0.02 if fault == "expired" else 1)
    files = {"RAY_TLS_SERVER_CERT": "/tls/tls.crt", "RAY_TLS_SERVER_KEY": "/tls/tls.key", "RAY_TLS_CA_CERT": "/tls/ca.crt"}
    if fault == "unreadable":
        (made / "tls.key").chmod(0o600)
    elif fault == "missing":
        (made / "ca.crt").unlink()
    elif fault == "not named":
        del files["RAY_TLS_SERVER_KEY"]
    given = [word for name, value in (files | {"RAY_USE_TLS": "1", "RSCAI_TOKEN": TOKEN}).items() for word in ("-e", f"{name}={value}")]
    done = run("docker", "run", "--rm", "--shm-size", "256m", "--volume", f"{made}:/tls:ro", *given, IMAGE, check=False)
    assert done.returncode == code
    assert f"ray-serve-cai: error: {said}" in done.stderr
    assert "Started" not in done.stdout + done.stderr
