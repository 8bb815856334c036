"""The Python package as an index has it: built, checked, and installed from the wheel where nothing else of this tree is."""

from __future__ import annotations

import contextlib
import email
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from images.resolve import pip_settings

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HEAVY = {"ray", "vllm", "sglang", "torch"}
COMPATIBLE = """
from ray_serve_cai import RayBackend, ray_backend
from ray_serve_cai.ray_backend import RayBackend, ray_backend
from ray_serve_cai.engines import EngineInfo, get_registry, register_engine
import ray_serve_cai.launch_cluster
"""
pytestmark = pytest.mark.issue(8)


def build(into: Path) -> dict[str, Path]:
    """The wheel and the sdist by their kind."""
    subprocess.run([BIN / "uv", "build", "--quiet", "--out-dir", into], cwd=ROOT, check=True, env=os.environ | pip_settings())
    (wheel,), (sdist,) = into.glob("*.whl"), into.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def metadata(built: dict[str, Path]) -> Message:
    with zipfile.ZipFile(built["wheel"]) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(files.read(name))


def test_an_index_takes_them(built: dict[str, Path]) -> None:
    done = subprocess.run([BIN / "twine", "check", "--strict", *built.values()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr


def test_what_an_index_shows(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {entry.partition(",")[0] for entry in metadata.get_all("Project-URL", [])} == {
        "Homepage",
        "Documentation",
        "Changelog",
        "Issues",
    }
    page = metadata.get_payload()
    assert isinstance(page, str)
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []


def test_no_engine_comes_with_it_unless_it_is_asked_for(metadata: Message) -> None:
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    plain = {one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})}
    assert plain == {"aiohttp", "httpx", "psutil", "pydantic", "python-multipart", "pyyaml", "ray"}
    images = json.loads((ROOT / "images/versions.json").read_text())["images"]
    for engine in ("vllm", "sglang"):
        (extra,) = (one for one in required if one.name == engine)
        assert extra.marker is not None
        assert extra.marker.evaluate({"extra": engine})
        assert extra.specifier.contains(images[f"{engine}-cuda"]["packages"][engine])


def test_what_is_in_them(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as files:
        assert {name.partition("/")[0] for name in files.namelist()} == {"ray_serve_cai", "ray_serve_cai-0.1.0.dist-info"}
    with tarfile.open(built["sdist"]) as files:
        inside = {name.split("/")[1] for name in files.getnames()}
    assert inside == {
        "ray_serve_cai",
        "configs",
        "docs",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }


def test_equal_sources_give_equal_files(built: dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path)
    for kind, file in built.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == hashlib.sha256(again[kind].read_bytes()).hexdigest(), kind


def interpreter_of(version: str) -> str | None:
    """A Python of this machine with this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [sys.executable, f"python{version}", *map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}"))]
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run([candidate, "-c", ask], capture_output=True, text=True, check=False).stdout.strip() == version:
                return candidate
    return None


@pytest.mark.full
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_wheel_where_nothing_else_is(built: dict[str, Path], tmp_path: Path, python: str) -> None:
    """The commands and the imports that callers know, and no Ray or engine loaded by them."""
    uv = [str(BIN / "uv")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | pip_settings()
    interpreter = interpreter_of(python)
    if interpreter is None:
        pytest.skip(f"no Python {python} that starts is on this machine's PATH or among pyenv's")
    venv = tmp_path / "venv"
    subprocess.run([*uv, "venv", "--quiet", "--python", interpreter, venv], check=True, env=environment)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", venv / "bin/python", built["wheel"]], check=True, env=environment)

    def run(*command: str | Path, code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [str(venv / "bin" / command[0]), *command[1:]],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    assert run("ray-serve-cai", "--version") == "ray-serve-cai 0.1.0\n"
    plan = json.loads(run("ray-serve-cai", "plan", "--json", RSCAI_ROLE="worker", RSCAI_HEAD_ADDRESS="10.0.0.1"))
    assert (plan["role"], plan["head_address"]) == ("worker", "10.0.0.1:6379")
    engines = {row["name"]: row for row in json.loads(run("ray-serve-cai", "engines", "--json"))}
    assert {name: row["installed"] for name, row in engines.items()} == {"vllm": None, "sglang": None}
    assert engines["vllm"]["install"] == "pip install 'ray-serve-cai[vllm]'"
    loaded = "import sys; print(sorted({name.partition('.')[0] for name in sys.modules} & " + repr(HEAVY) + "))"
    assert run("python", "-c", COMPATIBLE + loaded) == "[]\n"
    for arguments in ("['plan']", "['engines']", "['--help']"):
        code = f"import contextlib\nfrom ray_serve_cai.cli import main\nwith contextlib.suppress(SystemExit): main({arguments})\n{loaded}"
        assert run("python", "-c", code).splitlines()[-1] == "[]", arguments
    assert "Ray" in run("python", "-c", "import ray; print('Ray', ray.__version__)")
    said = run("python", "-c", "from ray_serve_cai.engines.registry import VLLM, check_installed; check_installed(VLLM)", code=1)
    assert "engine 'vllm' is not installed here; use an image that has it, or: pip install 'ray-serve-cai[vllm]'." in said
