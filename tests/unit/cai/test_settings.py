"""Where the platform is, and who asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_serve_cai.cai.settings import settings
from ray_serve_cai.errors import ConfigError, UsageError

pytestmark = pytest.mark.issue(9)
ENV = {"CML_HOST": "https://ml.example.com", "CML_API_KEY": "secret", "CDSW_PROJECT_ID": "abcd"}


def test_the_command_line_goes_before_the_environment_and_that_before_the_file() -> None:
    file = {"host": "https://file.example.com", "project_id": "of-file"}
    assert settings({}, {"CML_API_KEY": "k"}, file).host == "https://file.example.com"
    assert settings({}, ENV, file).host == "https://ml.example.com"
    made = settings({"host": "https://option.example.com", "project_id": None}, ENV, file)
    assert (made.host, made.project_id, made.domain) == ("https://option.example.com", "abcd", "option.example.com")


@pytest.mark.parametrize(
    ("name", "value", "host"),
    [
        ("CDSW_API_URL", "https://ml-0123.example.com/api/v1", "https://ml-0123.example.com"),
        ("CDSW_DOMAIN", "ml-0123.example.com", "https://ml-0123.example.com"),
        ("CML_HOST", "http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
    ],
)
def test_addresses_as_the_platform_gives_them(name: str, value: str, host: str) -> None:
    assert settings({}, {name: value, "CDSW_APIV2_KEY": "k", "CDSW_PROJECT_ID": "p"}, {}).host == host


def test_ones_own_variables_go_before_those_of_the_session() -> None:
    made = settings({}, ENV | {"CDSW_DOMAIN": "session.example.com", "CDSW_APIV2_KEY": "of-session"}, {})
    assert (made.host, made.api_key.get_secret_value()) == ("https://ml.example.com", "secret")


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        settings({}, {}, {})
    said = str(caught.value)
    for words in ("host: set CML_HOST or CDSW_API_URL or CDSW_DOMAIN", "api_key: set CML_API_KEY", "project_id: set CDSW_PROJECT_ID"):
        assert words in said


@pytest.mark.parametrize("host", ["ftp://ml.example.com", "https://", "https://a b", "https://user:hunter2@ml.example.com"])
def test_an_address_that_is_none(host: str) -> None:
    with pytest.raises(UsageError, match="use its address") as caught:
        settings({"host": host}, ENV, {})
    assert "hunter2" not in str(caught.value)


def test_a_ca_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match=f"the CA bundle '{bundle}' is not there"):
        settings({}, ENV | {"REQUESTS_CA_BUNDLE": str(bundle)}, {})
    bundle.touch()
    assert settings({}, ENV | {"SSL_CERT_FILE": str(bundle)}, {}).ca_bundle == bundle
    assert settings({}, ENV, {}).ca_bundle is None
