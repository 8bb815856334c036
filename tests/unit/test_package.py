"""Names that are there when they are asked for: in the package, in its engines, and an instance that shares its module's name."""

import importlib
import subprocess
import sys

import pytest

import ray_serve_cai
from ray_serve_cai import engines


@pytest.mark.parametrize("package", ["ray_serve_cai", "ray_serve_cai.engines"])
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []


@pytest.mark.parametrize("name", ["EngineInfo", "EngineRegistry", "LLMEngineProtocol", "get_registry", "register_engine"])
def test_the_package_has_the_names_of_its_engines(name: str) -> None:
    assert getattr(ray_serve_cai, name) is getattr(engines, name)


@pytest.mark.parametrize("package", ["ray_serve_cai", "ray_serve_cai.engines"])
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        getattr(importlib.import_module(package), "nothing")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {package} import nothing")


def test_the_backend_is_the_instance() -> None:
    assert isinstance(ray_serve_cai.ray_backend, ray_serve_cai.RayBackend)


PACKAGE = "from ray_serve_cai import RayBackend, ray_backend"


@pytest.mark.parametrize(
    "code",
    [
        PACKAGE,
        "from ray_serve_cai.ray_backend import RayBackend, ray_backend",
        f"{PACKAGE}; import ray_serve_cai.ray_backend; from ray_serve_cai import ray_backend",
        f"import ray_serve_cai.ray_backend; {PACKAGE}",
        f"from ray_serve_cai.ray_backend import RayBackend; {PACKAGE}",
        f"import importlib; importlib.import_module('ray_serve_cai.ray_backend'); {PACKAGE}",
        "import ray_serve_cai.ray_backend; RayBackend, ray_backend = ray_serve_cai.RayBackend, ray_serve_cai.ray_backend",
        "import ray_serve_cai; ray_serve_cai.RayBackend; from ray_serve_cai import RayBackend, ray_backend",
    ],
    ids=["package", "submodule", "package first", "submodule first", "from submodule first", "importlib", "attribute", "lazily"],
)
def test_the_backend_is_the_same_instance_in_any_order(code: str) -> None:
    check = (
        "import sys; assert type(ray_backend) is RayBackend, ray_backend; "
        "module = sys.modules['ray_serve_cai.ray_backend']; assert module.ray_backend is ray_backend; assert module.RayBackend is RayBackend"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_submodule_with_another_name_is_a_module() -> None:
    assert importlib.import_module("ray_serve_cai.errors") is ray_serve_cai.errors
