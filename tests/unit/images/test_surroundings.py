"""What the machine brings to a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from images.build_errors import BuildError
from images.plan import settings
from images.surroundings import Surroundings, apt_sources, ca_bundle, files, for_cuda, surroundings

pytestmark = pytest.mark.issue(8)
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEYRING = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"


def test_the_first_variable_that_is_set_names_the_ca_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(f"# a comment\n{PEM}")
    assert ca_bundle({"SSL_CERT_FILE": "", "PIP_CERT": str(bundle), "REQUESTS_CA_BUNDLE": "/none"}) == bundle


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.pem", None, r"cannot be read \(No such file or directory\)"),
        ("", None, r"cannot be read \(Is a directory\)"),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\n", "holds no certificate in PEM form"),
        ("ca.der", "0\x82\x03", "holds no certificate in PEM form"),
    ],
)
def test_a_ca_bundle_that_is_none(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BuildError, match=f"PIP_CERT is '{tmp_path / name}', which {words}; name a CA bundle, or unset it") as caught:
        ca_bundle({"PIP_CERT": str(tmp_path / name)})
    assert caught.value.exit_code == 66


@pytest.mark.usefixtures("without_rights")
def test_a_ca_bundle_that_may_not_be_read() -> None:
    with pytest.raises(BuildError, match=r"SSL_CERT_FILE is '/etc/shadow', which cannot be read \(Permission denied\)"):
        ca_bundle({"SSL_CERT_FILE": "/etc/shadow"})


def test_cuda_images_take_no_cpu_builds_of_torch() -> None:
    around = Surroundings(index="https://i", extra=("https://e",), wheels=Path("/w"), apt="deb")
    assert for_cuda(around) == Surroundings(index="https://i", apt="deb")


def test_further_indexes_are_asked_as_well() -> None:
    made = files(Surroundings(index="https://u:p@i/simple", extra=("https://a", "https://b")))
    assert made["pip.conf"] == "[global]\nindex-url = https://u:p@i/simple\nextra-index-url = https://a https://b\n"
    assert made["uv.toml"] == (
        'index-strategy = "unsafe-best-match"\n[[index]]\nurl = "https://u:p@i/simple"\ndefault = true\n'
        '[[index]]\nurl = "https://a"\n[[index]]\nurl = "https://b"\n'
    )


@pytest.mark.parametrize(
    ("environment", "security"),
    [
        ({"DEBIAN_MIRROR": "https://m/debian/"}, "https://m/debian-security"),
        ({"DEBIAN_MIRROR": "https://m/debian", "DEBIAN_SECURITY_MIRROR": "https://s/"}, "https://s"),
        ({"DEBIAN_MIRROR": "https://m/debian", "DEBIAN_SECURITY_MIRROR": ""}, None),
    ],
)
def test_a_mirror_has_releases_updates_and_security(environment: dict[str, str], security: str | None) -> None:
    lines = [f"{KEYRING} https://m/debian {suite} main" for suite in ("CODENAME", "CODENAME-updates")]
    lines += [f"{KEYRING} {security} CODENAME-security main"] if security else []
    sources = apt_sources(environment)
    assert sources is not None
    assert sources.splitlines() == lines
    assert files(Surroundings(apt=sources)) == {"apt.list": "\n".join(lines) + "\n"}


def test_no_mirror_is_none() -> None:
    assert apt_sources({}) is apt_sources({"DEBIAN_MIRROR": "", "DEBIAN_SECURITY_MIRROR": "https://s"}) is None


@pytest.mark.parametrize("value", ["mirror.example.com", "/srv/debian", "https://", "https://a b"])
def test_a_mirror_that_is_no_address(value: str) -> None:
    with pytest.raises(BuildError, match=f"DEBIAN_MIRROR is '{value.rstrip('/')}'; give an address such as https://") as caught:
        apt_sources({"DEBIAN_MIRROR": value})
    assert caught.value.exit_code == 64


def test_an_error_does_not_tell_the_password() -> None:
    with pytest.raises(BuildError) as caught:
        apt_sources({"DEBIAN_MIRROR": "ftp://me:hunter2@mirror/debian"})
    assert "hunter2" not in str(caught.value)
    assert "ftp://mirror/debian" in str(caught.value)


def test_proxies_reach_the_steps_without_standing_on_a_command_line() -> None:
    around = surroundings({"HTTP_PROXY": "http://u:p@proxy:3128", "https_proxy": "http://small:1", "HTTPS_PROXY": "http://big:1", "NO_PROXY": "a,.b"}, {})
    assert dict(around.proxies) == {
        **dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://u:p@proxy:3128"),
        **dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://small:1"),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "a,.b"),
    }
    names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
    assert settings(["vllm-cuda"], for_cuda(around), Path("/s"))[1::2] == [f"vllm-cuda.args.{name}" for name in names]
    assert not [word for word in settings(["vllm-cpu"], replace(around, wheelhouse=Path("/w")), Path("/s")) if "proxy" in word.lower()]


@pytest.mark.parametrize("value", ["http://localhost:3128", "127.0.0.1:3128", "http://u:p@127.1.2.3", "http://[::1]:3128"])
def test_a_proxy_at_localhost_is_left_out(value: str) -> None:
    around = surroundings({"HTTP_PROXY": value, "HTTPS_PROXY": "http://proxy:3128"}, {})
    assert around.left_out == ("http_proxy",)
    assert dict(around.proxies).keys() == {"https_proxy", "HTTPS_PROXY"}


@pytest.mark.parametrize("environment", [{"NO_PROXY": "a"}, {"HTTP_PROXY": "", "http_proxy": ""}])
def test_no_proxy_is_none(environment: dict[str, str]) -> None:
    assert surroundings(environment, {}) == Surroundings()
