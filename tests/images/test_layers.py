"""No secret, no cache, no privileged file in any layer; and the checks see each of them where it is put."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.containers import IMAGE, run
from tests.images import checks
from tests.images.conftest import inspect
from tests.images.layers import Findings, scan

pytestmark = pytest.mark.issue(7)
KEY = "-----BEGIN PRIVATE KEY-----\\n" + "A" * 300 + "\\n-----END PRIVATE KEY-----"  # of no one
Build = Callable[[str], str]


@pytest.fixture
def build() -> Iterator[Build]:
    """Builds an image from lines of a Dockerfile on top of the vLLM image for CPUs; it is removed afterwards."""
    made = []

    def make(lines: str) -> str:
        name = f"rscai-test:{uuid.uuid4().hex[:12]}"
        text = f"FROM {IMAGE}\nUSER root\n{lines}\n"
        done = subprocess.run(["docker", "build", "--quiet", "--tag", name, "-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made.append(name)
        return name

    yield make
    for name in made:
        run("docker", "image", "rm", "--force", name)


def test_every_layer_is_clean(image: str) -> None:
    assert scan(image) == Findings()


@pytest.mark.parametrize(
    ("lines", "kind", "path"),
    [
        ("RUN mkdir -p /root/.cache/pip/http && touch /root/.cache/pip/http/x", "caches", "root/.cache/pip/http/x"),
        ("RUN touch /opt/x-1.0-py3-none-any.whl\nRUN rm /opt/x-1.0-py3-none-any.whl", "caches", "opt/x-1.0-py3-none-any.whl"),
        (f"RUN printf -- '{KEY}' > /etc/key.pem\nRUN rm /etc/key.pem", "secrets", "etc/key.pem"),
        ("RUN echo 'machine a login b password c' > /root/.netrc", "secrets", "root/.netrc"),
        ("ENV HF_TOKEN=hf_0123456789012345678901234567890123", "secrets", "the image's configuration"),
        ("RUN cp /usr/bin/env /usr/bin/odd && chmod 4755 /usr/bin/odd", "privileged", "usr/bin/odd"),
        ("RUN touch /opt/odd && chmod 666 /opt/odd", "writable", "opt/odd"),
        ("RUN mkdir -p /home/cdsw && touch /home/cdsw/x /tmp/x", "homes", "home/cdsw/x"),
    ],
    ids=["pip cache", "hidden wheel", "hidden key", "netrc", "token in ENV", "setuid", "writable", "home"],
)
@pytest.mark.full
def test_what_does_not_belong_is_found(build: Build, lines: str, kind: str, path: str) -> None:
    found = scan(build(lines))
    assert path in getattr(found, kind)
    assert not any(paths for name, paths in vars(found).items() if name != kind)


def test_a_stray_pip_cache_is_found(build: Build) -> None:
    assert "root/.cache/pip/x" in scan(build("RUN mkdir -p /root/.cache/pip && touch /root/.cache/pip/x")).caches


def test_a_wrong_label_and_a_root_user_are_found(build: Build) -> None:
    manifest = json.loads(run("docker", "run", "--rm", IMAGE, "cat", "/opt/ray-serve-cai/manifest.json").stdout)
    wrong = inspect(build("LABEL io.ray-serve-cai.engine.version=9.9.9"))
    assert checks.labels(wrong, manifest) == [f"label io.ray-serve-cai.engine.version is '9.9.9' and the image holds '{manifest['engine_version']}'"]
    assert checks.user(wrong, "engine") == ["the user is 'root' rather than '1000:0'"]
