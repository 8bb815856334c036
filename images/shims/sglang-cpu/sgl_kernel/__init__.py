"""Stands for SGLang's native kernels on CPUs without AMX, where SGLang falls back to PyTorch. For tests and laptops.

With SGLANG_USE_CPU_ENGINE=1 SGLang 0.5.23 imports names from here whether it will call them or not. One is called for every
request; the others belong to speculative decoding and hierarchical caches, and say so when they are called.
"""

from collections.abc import Callable
from typing import Any

__version__ = "0.0.0+rscai"


def assign_req_to_token_pool_cpu(  # noqa: PLR0917  # SGLang calls it by position
    req_pool_indices: Any, req_to_token: Any, start_offsets: Any, end_offsets: Any, out_cache_loc: Any, pool_len: int
) -> None:
    """Write each request's new cache slots into its row of ``req_to_token`` (requests x positions), from start to end offset."""
    used = 0
    spans = zip(req_pool_indices.tolist(), start_offsets.tolist(), end_offsets.tolist(), strict=True)
    for row, start, end in spans:
        count = end - start
        req_to_token[row, start:end] = out_cache_loc[used : used + count].to(req_to_token.dtype)
        used += count


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"sgl_kernel.{name} has no CPU build in this image; leave out the feature that needs it.")

    absent.__name__ = name
    return absent
