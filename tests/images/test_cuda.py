"""CUDA images without a GPU: imports as far as they go, compilers that compile, libraries of one CUDA."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.containers import ROOT, run
from tests.images.conftest import Inside, inspect

pytestmark = pytest.mark.issue(7)
SITE = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages"
STRANGERS = {
    "cufft": {"12"},
    "curand": {"10"},
    "cusolver": {"12"},
    "cusparse": {"12"},
    "cufile": {"0"},
}
"""Libraries of the toolkit whose own major is not the toolkit's: their soname, as CUDA 13.0's release notes list it."""
VENDORED = ("torch_memory_saver", "triton/backends/nvidia/lib/cupti/")
"""What carries builds for several CUDAs side by side and loads the one that fits; and Triton's profiler, which has a CUPTI of its own."""
C = """
#include <Python.h>
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "made", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_made(void) { return PyModule_Create(&def); }
"""
CUDA = """
#include <cuda_runtime.h>
#include <cstdio>
__global__ void twice(float *x) { x[threadIdx.x] *= 2; }
extern "C" int version() { int v = 0; cudaRuntimeGetVersion(&v); return v; }
extern "C" void launch(float *x) { twice<<<1, 32>>>(x); }
"""


@pytest.fixture
def manifest(inside: Inside) -> dict[str, Any]:
    return dict(json.loads(inside("cat", "/opt/ray-serve-cai/manifest.json")))


def script(inside: Inside, text: str, *arguments: str, name: str = "python3") -> str:
    """Run a script from standard input in the container."""
    command = ["docker", "exec", "--interactive", inside.id, name, *(["-"] if name == "python3" else ["-s"]), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_engine_imports_and_has_a_command_line(cuda_image: str, inside: Inside, manifest: dict[str, Any]) -> None:
    engine = manifest["engine"]
    code = f"import torch, {engine}; print(torch.version.cuda, torch.cuda.is_available(), {engine}.__version__)"
    assert inside("python3", "-c", code).split()[-3:] == [manifest["cuda"], "False", manifest["engine_version"]]
    server = {"vllm": "vllm.entrypoints.openai.api_server", "sglang": "sglang.srt.entrypoints.http_server"}[engine]
    inside("python3", "-c", f"import {server}, ray_serve_cai.engines.{engine}_engine")
    if engine == "sglang":  # vLLM's command line wants a device for its defaults
        assert "--tensor-parallel-size" in inside("python3", "-m", "sglang.launch_server", "--help")


def test_a_python_extension_in_c(cuda_image: str, inside: Inside) -> None:
    build = "cd /tmp && gcc -shared -fPIC $(python3.11-config --includes 2>/dev/null || echo -I/usr/include/python3.11) made.c -o made.so && python3 -c 'import made; print(made.__name__)'"
    assert script(inside, f"cat > /tmp/made.c <<'END'\n{C}\nEND\n{build}", name="bash").strip() == "made"


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_100a"])
def test_a_kernel_in_cuda(cuda_image: str, inside: Inside, manifest: dict[str, Any], architecture: str) -> None:
    """nvcc compiles and links; the run time that it links says its version without a GPU."""
    for link in ("static", "shared"):
        build = f"cd /tmp && nvcc -arch={architecture} -shared -Xcompiler -fPIC -cudart={link} k.cu -o k-{link}.so"
        ask = f"LD_LIBRARY_PATH=$CUDA_HOME/lib python3 -c \"import ctypes; print(ctypes.CDLL('/tmp/k-{link}.so').version())\""
        version = int(script(inside, f"cat > /tmp/k.cu <<'END'\n{CUDA}\nEND\n{build} && {ask}", name="bash"))
        assert f"{version // 1000}.{version % 1000 // 10}" == manifest["cuda"]


def test_the_tool_chain_is_of_one_toolkit(cuda_image: str, inside: Inside, manifest: dict[str, Any]) -> None:
    assert f"release {manifest['cuda']}" in inside("nvcc", "--version")
    assert inside("ninja", "--version").strip()
    code = "from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME)"
    assert inside("python3", "-c", code).split()[-1] == "/opt/ray-serve-cai/cuda"
    versions = script(inside, "from importlib.metadata import version as v\nfor n in ('nvcc', 'crt', 'runtime', 'nvrtc', 'cccl'): print(n, v(f'nvidia-cuda-{n}'))\nprint('nvvm', v('nvidia-nvvm'))")
    assert {line.split()[1].rpartition(".")[0] for line in versions.splitlines()} == {manifest["cuda"]}


def test_the_cuda_majors_of_all_shared_objects_agree(cuda_image: str, inside: Inside, manifest: dict[str, Any]) -> None:
    found = json.loads(script(inside, (ROOT / "tests/images/abi.py").read_text(), SITE))
    major = manifest["cuda"].partition(".")[0]
    assert {"cudart", "cublas"} <= found.keys()
    odd = [
        f"{path.removeprefix(SITE + '/')} is or needs lib{library}.so.{version}"
        for library, users in found.items()
        for version, path in users
        if version not in STRANGERS.get(library, {major}) and not path.removeprefix(SITE + "/").startswith(VENDORED)
    ]
    assert odd == []


def test_what_is_compiled_while_serving_is_kept_and_writable(cuda_image: str) -> None:
    environment = dict(line.split("=", 1) for line in inspect(cuda_image)["Config"]["Env"])
    assert (environment["NVIDIA_VISIBLE_DEVICES"], environment["NVIDIA_DRIVER_CAPABILITIES"]) == ("all", "compute,utility")
    caches = ["VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE", "DG_JIT_CACHE_DIR", "CUDA_CACHE_PATH"]
    assert all(environment[name].startswith("/var/lib/ray-serve-cai/") for name in caches)
    make = "for d in " + " ".join(f'"${name}"' for name in caches) + '; do mkdir -p "$d" && touch "$d/x" || exit 1; done; echo good'
    user = "8536:8536" if cuda_image.endswith("-cai") else "12345:0"
    root = () if cuda_image.endswith("-cai") else ("--read-only", "--tmpfs", "/tmp")
    options = (*root, "--user", user, "--cap-drop", "ALL", "--entrypoint", "sh")
    assert run("docker", "run", "--rm", *options, cuda_image, "-c", make).stdout == "good\n"


def test_without_a_gpu_it_says_so_in_one_line(cuda_image: str) -> None:
    options = ("--env", "RSCAI_MODEL=demo", "--shm-size", "256m")
    done = run("docker", "run", "--rm", *options, cuda_image, "ray-serve-cai", "node", check=False, timeout=300)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ray-serve-cai: error:")]
    assert len(lines) == 1, done.stderr[-3000:]
    assert "GPU" in lines[0]
    assert "--gpus all" in lines[0]
    assert done.returncode == 71
