"""Does a model fit? The weights' size against the memory there is, before an engine is started and killed for it."""

from __future__ import annotations

from pathlib import Path

import psutil

from ray_serve_cai import cgroup
from ray_serve_cai.engines import data_parallel
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import ResourceError

_GIB = 1 << 30


def weights_bytes(model: str) -> int:
    """Bytes of weight files in a local model directory; 0 where the model is an id or has none."""
    directory = Path(model)
    if not directory.is_dir():
        return 0
    for pattern in ("*.safetensors", "*.bin", "*.pt", "*.gguf"):
        size = sum(file.stat().st_size for file in directory.glob(pattern))
        if size:
            return size
    return 0


def available_memory() -> int:
    """Bytes this container may still take: the smaller of the machine's free memory and the container's limit."""
    free = int(psutil.virtual_memory().available)
    limit = cgroup.memory(Path("/"))
    return free if limit is None else min(free, limit)


def check_memory(config: EngineConfig) -> None:
    """Refuse a model whose weights cannot fit into this node's memory (CPU replicas only).

    Raises:
        ResourceError: naming both sizes and the fix.
    """
    if config.gpus:
        return
    need, have = weights_bytes(config.model) * data_parallel.size(config.arguments) // config.nodes, available_memory()
    if need > have:
        raise ResourceError(
            f"model {config.name!r} has {need / _GIB:.1f} GiB of weights for this node, which has {have / _GIB:.1f} GiB of free memory; "
            "use a smaller or quantized model, or a node with more memory."
        )
