"""What vLLM runs in each of its processes as it starts there, by the entry point group ``vllm.general_plugins`` (vllm/plugins)."""

from __future__ import annotations


def allow_amx() -> None:
    """Ask Linux for the use of AMX tiles, which a process may not touch before; without AMX nothing happens.

    vLLM takes its AMX kernels for attention where the CPU has them (vllm/v1/attention/backends/cpu_attn.py, 0.32.0), but leaves it to
    oneDNN to ask, which does so only for matrices that are large enough. A rank that holds a part of a small model is killed
    by SIGILL otherwise.
    """
    import torch

    torch.cpu._init_amx()  # private; the same call as oneDNN's, arch_prctl(ARCH_REQ_XCOMP_PERM), read in torch 2.13
