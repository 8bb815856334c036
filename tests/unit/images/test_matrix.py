"""docker-bake.hcl follows from versions.json: the matrix, the labels, what Cloudera AI asks for."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from images import matrix

pytestmark = pytest.mark.issue(7)
VERSIONS: dict[str, Any] = json.loads((matrix.IMAGES / "versions.json").read_text())
ALL = [f"{engine}-{device}{variant}" for variant in ("", "-cai") for device in ("cpu", "cuda") for engine in ("vllm", "sglang")]


def test_the_matrix() -> None:
    groups = matrix.names(VERSIONS)
    assert sorted(groups["all"]) == sorted(ALL)
    assert groups["default"] == groups["cpu"] == ["vllm-cpu", "sglang-cpu"]
    assert sorted(groups["cpu"] + groups["cuda"] + groups["cai"]) == sorted(ALL)
    assert sorted(groups["cpu-cai"] + groups["cuda-cai"]) == sorted(groups["cai"])


def test_the_file_is_what_docker_reads() -> None:
    if shutil.which("docker") is None:
        pytest.fail("docker is not here; make test installs it")
    command = ("docker", "buildx", "bake", "--file", str(matrix.IMAGES / "docker-bake.hcl"), "--print", "all")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=matrix.ROOT)
    targets = json.loads(done.stdout)["target"]
    assert sorted(targets) == sorted(ALL)
    for name, target in targets.items():
        arguments = target["args"]
        assert target["tags"] == [f"ray-serve-cai:{name}"]
        assert name == arguments["IMAGE"] + ("" if arguments["VARIANT"] == "engine" else f"-{arguments['VARIANT']}")
        assert arguments["IMAGE"] == f"{arguments['ENGINE']}-{arguments['DEVICE']}"
        assert ("ML_RUNTIME_EDITION" in arguments) == name.endswith("-cai") == (arguments.get("OWNER") == "8536:8536")
        assert ("io.ray-serve-cai.cuda.version" in target["labels"]) == ("-cuda" in name)
        assert target["labels"]["org.opencontainers.image.created"] == "1970-01-01T00:00:00Z"


def test_runtimes_differ_in_edition_and_no_edition_is_reserved() -> None:
    editions = [matrix.runtime(image, VERSIONS)["ML_RUNTIME_EDITION"] for image in VERSIONS["images"].values()]
    assert editions == ["Ray Serve vLLM CPU", "Ray Serve SGLang CPU", "Ray Serve vLLM CUDA", "Ray Serve SGLang CUDA"]
    assert int(VERSIONS["cai"]["maintenance_version"]) > 0


def test_labels_carry_the_pins() -> None:
    image = VERSIONS["images"]["vllm-cuda"]
    made = matrix.labels("vllm-cuda-cai", image, VERSIONS, "1.2.3", "cai")
    assert made["io.ray-serve-cai.engine.version"] == image["packages"]["vllm"]
    assert made["io.ray-serve-cai.cuda.version"] == image["cuda"]
    assert (made["org.opencontainers.image.version"], made["io.ray-serve-cai.variant"]) == ("1.2.3", "cai")


def test_what_a_wheelhouse_collects_goes_to_one_directory() -> None:
    targets = ["collected-debs", "collected-tool-wheels", "collected-vllm-cpu", "collected-sglang-cuda"]
    command = ("docker", "buildx", "bake", "--file", str(matrix.IMAGES / "docker-bake.hcl"), "--print", *targets)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=matrix.ROOT)
    made = json.loads(done.stdout)["target"]
    assert [made[name]["target"] for name in targets] == ["collected-debs", "collected-tool-wheels", *["collected-wheels"] * 2]
    assert {tuple(target["output"]) for target in made.values()} == {("type=local,dest=build/collected",)}
    assert made["collected-sglang-cuda"]["args"]["EXTRA_INDEX_URL"] == ""
    assert "EXTRA_INDEX_URL" not in made["collected-vllm-cpu"]["args"]
