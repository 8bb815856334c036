"""Who imports whom. What docs/architecture.md draws, asserted on the source and on what gets loaded."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ray_serve_cai

PACKAGE = Path(ray_serve_cai.__file__).parent
LAYERS = {
    # a part of the package: the parts that it may import
    "errors": set(),
    "cgroup": set(),
    "labels": set(),
    "engine_ports": {"errors"},
    "logs": set(),
    "state": set(),
    "private_file": set(),
    "config": {"errors"},
    "keys": {"config", "errors", "node"},
    "sources": {"errors", "state"},
    "fetch": {"errors", "sources"},
    "engines": {"config", "errors", "cgroup", "labels", "engine_ports", "logs"},
    "serving": {"engines", "config", "errors", "labels", "private_file", "sources", "state"},
    "node": {"errors", "engine_ports", "labels", "logs", "private_file", "sources", "state", "cgroup"},
    "ray_session": {"node", "engines", "errors", "private_file"},
    "ray_backend": {"serving", "engines", "config", "errors", "sources", "node", "ray_session"},
    "ray_processes": set(),
    "launch_cluster": {"config", "errors", "logs", "node", "engines", "ray_session", "ray_processes", "commands"},
    "commands": {"keys", "node", "serving", "engines", "config", "errors", "state", "logs", "fetch", "upgrade", "cai"},
    "cli": {"commands", "errors", "logs"},
    "cai": {"config", "errors", "logs", "node", "private_file"},
    "upgrade": {"node", "errors", "logs", "private_file", "state"},
}
HEAVY = {"ray", "vllm", "sglang", "torch"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imports(module: Path, *, at_import_time: bool) -> Iterator[str]:
    """Names of imported modules; those only a type checker reads do not count."""
    waiting: list[ast.AST] = [ast.parse((PACKAGE / module).read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def test_every_part_has_its_place() -> None:
    assert {part_of(module) for module in MODULES} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path) -> None:
    used = {name.split(".")[1] for name in imports(module, at_import_time=False) if name.startswith("ray_serve_cai.")}
    part = part_of(module)
    allowed = LAYERS.get(part, set()) | {part, "__version__"}
    assert used <= allowed, f"{module} imports {sorted(used - allowed)}"


IN_RAY = {Path("engines/replica.py"), Path("engines/gang.py")}
"""What runs only inside Ray's processes, and where a deployment is made."""


@pytest.mark.parametrize("module", [one for one in MODULES if one not in IN_RAY], ids=str)
def test_nothing_heavy_is_imported_before_it_is_used(module: Path) -> None:
    assert HEAVY.isdisjoint(name.split(".")[0] for name in imports(module, at_import_time=True))


@pytest.mark.parametrize("module", [one for one in MODULES if part_of(one) == "node"], ids=str)
def test_the_launcher_never_imports_an_engine_or_ray(module: Path) -> None:
    assert HEAVY.isdisjoint(name.split(".")[0] for name in imports(module, at_import_time=False))


def loaded_by(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter, after some code."""
    script = f"{code}\nimport json, sys\nprint()\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        pytest.param("import ray_serve_cai", HEAVY | {"pydantic", "aiohttp", "httpx", "yaml"}, id="the package"),
        pytest.param("import ray_serve_cai.cli", HEAVY | {"pydantic", "aiohttp", "httpx", "yaml", "asyncio"}, id="the CLI"),
        pytest.param("from ray_serve_cai import cli; cli.main(['plan'])", HEAVY | {"aiohttp", "httpx"}, id="plan"),
        pytest.param("from ray_serve_cai import cli; cli.main(['health'])", HEAVY | {"pydantic", "aiohttp", "httpx", "yaml"}, id="health"),
        pytest.param("from ray_serve_cai import cli; cli.main(['engines'])", HEAVY | {"aiohttp"}, id="engines"),
        pytest.param("import ray_serve_cai.fetch.command", HEAVY | {"huggingface_hub", "httpx", "pydantic", "aiohttp"}, id="fetch"),
        pytest.param("from ray_serve_cai import cli; cli.main(['fetch', '/'])", HEAVY | {"huggingface_hub", "httpx"}, id="fetch of a path"),
        pytest.param("import ray_serve_cai.node.supervisor", HEAVY | {"pydantic"}, id="the launcher"),
        pytest.param(
            "import ray_serve_cai.engines; ray_serve_cai.engines.get_registry().installed()",
            HEAVY | {"pydantic", "aiohttp", "httpx", "yaml"},
            id="the registry",
        ),
        pytest.param("from ray_serve_cai import ray_backend", HEAVY | {"aiohttp"}, id="the backend"),
        pytest.param("from ray_serve_cai.engines import *", HEAVY, id="every name of the engines"),
        pytest.param(
            "import ray_serve_cai.serving.app, ray_serve_cai.serving.controller, ray_serve_cai.engines.vllm_engine", HEAVY, id="serving"
        ),
    ],
)
def test_what_a_command_loads(code: str, absent: set[str]) -> None:
    assert loaded_by(code).isdisjoint(absent)
