"""What the scan of layers finds in images made by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests.images.handmade import Member, directory, file, image, link
from tests.images.layers import Findings, scan_archive

pytestmark = pytest.mark.issue(7)
BASE = [
    directory("./"),
    directory("./tmp", 0o1777),
    directory("run/lock", 0o1777),
    directory("var/mail", 0o2775),
    file("usr/bin/su", b"elf", 0o4755),
    link("bin", "usr/bin"),
    file("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n"),
    file("var/lib/apt/lists/lock"),
]
STRIPPED = [directory("usr/bin"), file("usr/bin/su", b"elf", 0o755)]
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b"A" * 70 + b"\n"
ENCRYPTED = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + b"A" * 64
SITE = "opt/ray-serve-cai/venv/lib/python3.11/site-packages"


def scanned(*layers: list[Member], **more: Any) -> Findings:
    return scan_archive(io.BytesIO(image(BASE, STRIPPED, *layers, **more)))


def test_a_clean_image() -> None:
    assert scanned([file("opt/a", b"1"), link("opt/b", "a")]) == Findings()


@pytest.mark.parametrize(
    "path",
    [
        "root/.cache/pip/http/a",
        "root/.cache/uv/a",
        "home/rscai/.cache/pip/a",
        "var/cache/apt/archives/gcc_12_amd64.deb",
        "var/cache/apt/pkgcache.bin",
        "var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_InRelease",
        "opt/wheels/torch-2.13.0-cp311-cp311-linux_x86_64.whl",
        "tmp/uv/a",
    ],
)
def test_caches(path: str) -> None:
    for kept in ([[file(path, b"1")]], [[file(path, b"1")], [file(f"{path.rpartition('/')[0]}/.wh.{path.rpartition('/')[2]}")]]):
        assert scanned(*kept).caches == [path]


def test_what_is_no_cache() -> None:
    embedded = file(f"{SITE}/virtualenv/seed/wheels/embed/pip-26-py3-none-any.whl", b"1")
    assert scanned([embedded, directory("root/.cache"), directory("var/lib/apt/lists/partial")]) == Findings()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/ssl/private/site.key", KEY),
        ("etc/ssl/private/site.key", ENCRYPTED),
        (f"{SITE}/odd/key.pem", KEY),
        (f"{SITE}/odd/token.py", b'TOKEN = "hf_' + b"a" * 34 + b'"'),
        ("opt/note", b"AKIA" + b"A" * 16),
        ("opt/note", b"ghp_" + b"a" * 36),
        ("opt/env", b"HF_TOKEN=abcdefgh"),
        ("opt/env", b'export AWS_SECRET_ACCESS_KEY="abcdefgh"'),
        ("opt/env", b"CDSW_APIV2_KEY=abcdefgh"),
        ("opt/env", b"index = https://user:word@example.org/simple"),
        ("root/.netrc", b"machine a login b password c"),
        ("root/.docker/config.json", b"{}"),
        ("home/rscai/.ssh/id_ed25519", b"unreadable"),
        ("etc/pip.conf", b"[global]\nindex-url = https://example.org/simple"),
        ("etc/uv/uv.toml", b"[[index]]"),
    ],
)
def test_secrets(path: str, text: bytes) -> None:
    assert scanned([file(path, text)]).secrets == [path]
    assert scanned([file(path, text)], [file(f"{path.rpartition('/')[0]}/.wh.{path.rpartition('/')[2]}")]).secrets == [path]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("opt/env", b"HF_TOKEN=${HF_TOKEN:-}\nHF_TOKEN=<your token>\nHF_TOKEN='$secret'"),
        ("opt/docs", b"-----BEGIN PRIVATE KEY-----\n...\n"),
        (f"{SITE}/fsspec/utils.py", b"ftp://username:password@server"),
        (f"{SITE}/tornado/test/test.key", KEY),
        ("opt/data", b"\0" + KEY),
        ("opt/big", b"x" * (256 << 10) + KEY),
        ("etc/pip.conf", b""),
    ],
    ids=["variables", "no key", "an example in a package", "published", "no text", "no small text", "empty"],
)
def test_what_is_no_secret(path: str, text: bytes) -> None:
    assert scanned([file(path, text)]) == Findings()


@pytest.mark.parametrize(
    "more",
    [
        {"config": {"Env": ["PATH=/bin", "HF_TOKEN=abcdefgh"]}},
        {"config": {"Labels": {"key": "hf_" + "a" * 34}}},
        {"commands": ["", "", "RUN |1 PIP_INDEX_URL=https://user:word@example.org/simple /bin/sh -c pip install x"]},
    ],
    ids=["ENV", "label", "history"],
)
def test_secrets_in_the_configuration(more: dict[str, Any]) -> None:
    assert scanned([file("opt/a")], **more).secrets == ["the image's configuration"]


def test_files_in_places_that_the_platform_mounts() -> None:
    layer = [directory("home/cdsw"), file("home/cdsw/a"), link("home/cdsw/b", "a"), directory("tmp", 0o1777), file("tmp/c")]
    assert scanned(layer).homes == ["home/cdsw/a", "home/cdsw/b", "tmp/c"]


def test_privileged_files_are_those_that_are_left() -> None:
    assert scan_archive(io.BytesIO(image(BASE))).privileged == ["usr/bin/su"]
    assert scan_archive(io.BytesIO(image(BASE, [file("usr/bin/.wh.su")]))).privileged == []
    assert scan_archive(io.BytesIO(image(BASE, [file("usr/.wh.bin")]))).privileged == []
    assert scan_archive(io.BytesIO(image(BASE, [file("usr/bin/.wh..wh..opq")]))).privileged == []
    assert scanned([file("usr/bin/ssh-agent", b"elf", 0o2755)]).privileged == ["usr/bin/ssh-agent"]


def test_what_everybody_may_write() -> None:
    assert scanned([file("opt/a", b"1", 0o666), directory("opt/b", 0o777), link("opt/c", "a")]).writable == ["opt/a", "opt/b"]
    assert scanned([directory("var/tmp", 0o777)]).writable == ["var/tmp"]


def test_a_runtime_of_cloudera_may_have_etc_writable() -> None:
    layer = [directory("etc", 0o777), directory("etc/alternatives", 0o777)]
    assert scanned(layer).writable == ["etc", "etc/alternatives"]
    assert scanned(layer, config={"Labels": {"io.ray-serve-cai.variant": "cai"}}).writable == []
