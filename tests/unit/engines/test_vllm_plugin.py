import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

from ray_serve_cai.engines import vllm_plugin


def test_vllm_finds_it() -> None:
    found = [point.load() for point in entry_points(group="vllm.general_plugins") if point.name == "ray-serve-cai"]
    assert found == [vllm_plugin.allow_amx]


def test_it_asks_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cpu=SimpleNamespace(_init_amx=lambda: asked.append(True))))
    vllm_plugin.allow_amx()
    assert asked == [True]
