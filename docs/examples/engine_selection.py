"""Which engine runs a model: the parameter wins over the configuration, the configuration over the backend's default."""

import asyncio

from ray_serve_cai import RayBackend, get_registry

CONFIG = {"model": "demo", "use_cpu": True, "max_model_len": 512}


async def main() -> None:
    registry = get_registry()
    for name in registry.list_engines():
        print(f"{name}: {registry.installed_version(name) or 'not installed'}")

    backend = RayBackend(default_engine="sglang")
    try:
        await start(backend, "by parameter", CONFIG | {"engine": "sglang"}, engine="vllm")
        await start(backend, "by configuration", CONFIG | {"engine": "vllm"})
        await start(backend, "by nothing, so the backend's default", CONFIG)
        await start(backend, "by a name that nobody has", CONFIG, engine="vlm")
    finally:
        await backend.shutdown()


async def start(backend: RayBackend, how: str, config: dict[str, object], engine: str | None = None) -> None:
    """Start a model, say which engine runs it or why none does, and stop it."""
    started = await backend.start_model(config, engine=engine)
    print(f"{how}: {started['engine'] if started['started'] else started['message']}")
    await backend.stop_model()


if __name__ == "__main__":
    asyncio.run(main())
