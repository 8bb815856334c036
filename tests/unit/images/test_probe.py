"""What the probe finds in an environment that is made by hand; in a real image it is run by tests/images/test_tagger.py."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from images import probe
from images.daemon import PROBE

pytestmark = pytest.mark.issue(7)


def install(site: Path, name: str, version: str, files: dict[str, str], recorded: str) -> None:
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(recorded)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Torch, with a file that its record names and that is gone, one that was compiled, and a link."""
    compiled = f"torch/__pycache__/version.{sys.implementation.cache_tag}.pyc"
    files = {"torch/version.py": "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n", compiled: "12345"}
    install(tmp_path, "torch", "2.13.0", files, "torch/version.py,,\ntorch/gone.so,,\ntorch/link.py,,\n")
    (tmp_path / "torch/link.py").symlink_to("version.py")
    return tmp_path


def only(site: Path) -> Distribution:
    (found,) = distributions(path=[str(site)])
    return found


def test_the_files_of_a_distribution(site: Path) -> None:
    assert sorted(Path(path).name for path in probe.files(only(site))) == [f"version.{sys.implementation.cache_tag}.pyc", "version.py"]


def test_the_cuda_version_of_torch(site: Path) -> None:
    assert probe.torch_cuda([only(site)]) == "13.0"
    (site / "torch/version.py").write_text("cuda: Optional[str] = None\n")
    assert probe.torch_cuda([only(site)]) is None
    assert probe.torch_cuda([]) is None


def test_names_and_fields() -> None:
    assert probe.normal("Typing_Extensions.x") == "typing-extensions-x"
    assert probe.fields('ID=debian\nVERSION_ID="12"\n more=no\nnothing\n', "=") == {"ID": "debian", "VERSION_ID": "12"}


def test_a_distribution_that_a_stranger_made_without_a_record(tmp_path: Path) -> None:
    install(tmp_path, "bare", "1", {}, "")
    (tmp_path / "bare-1.dist-info/RECORD").unlink()
    assert probe.files(only(tmp_path)) == set()


def test_it_runs_as_it_is_sent_to_a_container() -> None:
    """As the text of a command, with nothing but the standard library to import from."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", PROBE.read_text()], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {
        *("python", "machine", "distributions", "sizes", "unowned", "torch_cuda", "os_release", "debian", "manifest")
    }
