from pathlib import Path
from types import SimpleNamespace

import pytest

from ray_serve_cai.engines import memory
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.errors import ResourceError

GIB = 1 << 30


def engine_config(model: Path, gpus: int = 0) -> EngineConfig:
    return EngineConfig(info=VLLM, name="big", model=str(model), arguments={}, gpus=gpus)


def weights(directory: Path, **sizes: int) -> None:
    """Files with holes: they have a size and take no disk."""
    for name, size in sizes.items():
        with (directory / name.replace("_", ".")).open("wb") as file:
            file.truncate(size)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 0),
        ({"config_json": 5}, 0),
        ({"a_safetensors": 3, "b_safetensors": 4}, 7),
        ({"a_safetensors": 3, "a_bin": 100}, 3),
        ({"a_bin": 100, "a_gguf": 5}, 100),
        ({"a_gguf": 5}, 5),
    ],
)
def test_the_size_of_weights(tmp_path: Path, files: dict[str, int], expected: int) -> None:
    weights(tmp_path, **files)
    assert memory.weights_bytes(str(tmp_path)) == expected


def test_an_id_has_no_size_yet() -> None:
    assert memory.weights_bytes("Qwen/Qwen3-0.6B") == 0


@pytest.mark.parametrize(("limit", "expected"), [(None, 8), (4, 4), (9, 8)])
def test_the_smaller_of_free_memory_and_limit(monkeypatch: pytest.MonkeyPatch, limit: int | None, expected: int) -> None:
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=8))
    monkeypatch.setattr(memory.cgroup, "memory", lambda root: limit)
    assert memory.available_memory() == expected


@pytest.fixture
def two_gib_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * GIB)


@pytest.mark.usefixtures("two_gib_free")
def test_weights_that_do_not_fit_are_refused_with_both_sizes(tmp_path: Path) -> None:
    weights(tmp_path, a_safetensors=3 * GIB)
    with pytest.raises(ResourceError, match=r"'big' has 3\.0 GiB.*2\.0 GiB of free memory; use a smaller"):
        memory.check_memory(engine_config(tmp_path))


@pytest.mark.usefixtures("two_gib_free")
def test_weights_that_fit_pass(tmp_path: Path) -> None:
    weights(tmp_path, a_safetensors=GIB)
    memory.check_memory(engine_config(tmp_path))


@pytest.mark.usefixtures("two_gib_free")
def test_weights_on_gpus_are_the_engines_business(tmp_path: Path) -> None:
    weights(tmp_path, a_safetensors=3 * GIB)
    memory.check_memory(engine_config(tmp_path, gpus=1))
