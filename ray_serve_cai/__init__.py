"""ray-serve-cai: serve large language models from container images with Ray Serve.

Importing the package imports neither Ray nor an engine; names are loaded when first asked for.
"""

import importlib
import sys
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_serve_cai.engines import (
        ConfigBuilderProtocol,
        DeploymentFactoryProtocol,
        EngineInfo,
        EngineRegistry,
        LLMEngineProtocol,
        get_registry,
        register_engine,
    )
    from ray_serve_cai.ray_backend import RayBackend, ray_backend

__version__ = version("ray-serve-cai")

__all__ = [
    "ConfigBuilderProtocol",
    "DeploymentFactoryProtocol",
    "EngineInfo",
    "EngineRegistry",
    "LLMEngineProtocol",
    "RayBackend",
    "__version__",
    "get_registry",
    "ray_backend",
    "register_engine",
]


class _Package(ModuleType):
    """Lets ``ray_serve_cai.ray_backend`` be the instance, which callers know, and not the submodule of the same name.

    Whoever imports the submodule makes Python set it as the package's attribute; that is when the instance is put there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "ray_backend" and isinstance(value, ModuleType):
            value = value.ray_backend
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in ("RayBackend", "ray_backend"):
        return getattr(importlib.import_module(f"{__name__}.ray_backend"), name)
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.engines"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
