import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest

from ray_serve_cai import sources
from ray_serve_cai.errors import ConfigError
from ray_serve_cai.node import manifest as module
from ray_serve_cai.node.manifest import Manifest


def test_keys_and_path_are_fixed(manifest: Manifest) -> None:
    first = ["schema", "build_id", "protocol", "ray", "python", "engine", "engine_version", "device"]
    assert list(manifest.as_dict()) == [*first, "torch", "cuda", "variant", "package", "image"]
    assert str(module.PATH) == "/opt/ray-serve-cai/manifest.json"
    assert str(sources.SHIPPED) == "/opt/ray-serve-cai/models"


def test_an_images_manifest(tmp_path: Path, manifest: Manifest) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(asdict(manifest)))
    assert module.read(file) == manifest


def test_outside_an_image(tmp_path: Path) -> None:
    here = module.read(tmp_path / "no.json")
    assert (here.build_id, here.python, here.engine, here.device) == ("source", platform.python_version(), "vllm", "cpu")
    assert here.protocol == module.PROTOCOL
    assert here.ray == version("ray")


def test_what_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        raise module.PackageNotFoundError(distribution)

    monkeypatch.setattr(module, "version", version)
    here = module.read(tmp_path / "no.json")
    assert (here.ray, here.engine_version) == ("none", "none")


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "{}", '{"schema": 1}', '{"odd": 1}'])
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=rf"{file} is no image manifest .*; rebuild the image"):
        module.read(file)


def test_the_manifest_of_another_release(manifest: Manifest) -> None:
    assert module.of_another(json.dumps(asdict(manifest) | {"schema": 2, "made": "later"}), "cai:b").ray == manifest.ray
    first = {name: value for name, value in asdict(manifest).items() if name not in ("torch", "cuda", "variant", "package", "image")}
    assert module.of_another(json.dumps(first), "cai:a").variant == "engine"
    with pytest.raises(ConfigError, match=r"cai:b has no manifest of ray-serve-cai \('ray'\); use an image of this project"):
        module.of_another(json.dumps({name: value for name, value in asdict(manifest).items() if name != "ray"}), "cai:b")
