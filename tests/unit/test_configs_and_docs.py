"""The examples load, the generated tables are up to date, and what the pages say can be followed."""

import itertools
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_serve_cai import config, keys
from ray_serve_cai.engines import user_config
from ray_serve_cai.engines.registry import get_registry
from ray_serve_cai.node import doubts
from ray_serve_cai.state import PHASES

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
VARIABLE = re.compile(r"\bRSCAI_[A-Z_]*[A-Z]\b")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    """The names of docs/generate.py, which is a script and not a module."""
    return runpy.run_path(str(ROOT / "docs/generate.py"))


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (kind, code) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if kind == language
    ]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[Any]:
    return [
        pytest.param(page, target, id=f"{page.name}-{target}")
        for page in PAGES
        for target in LINK.findall(prose(page.read_text(encoding="utf-8")))
        if not re.match(r"https?:", target)
    ]


def host_scripts() -> str:
    """What runs on the user's machine: make, and the scripts that it calls."""
    files = [ROOT / "Makefile", *sorted((ROOT / "compose").glob("*")), *sorted((ROOT / "images").glob("*.sh")), ROOT / "images/surroundings.py", ROOT / ".ci/run"]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file() and file.name != ".env")


def test_the_examples_are_there() -> None:
    examples = {"local_basic", "local_cpu", "local_gpu", "multi_node_example", "mixed_engines", "across_nodes", "cloudera_ai"}
    assert {path.stem for path in CONFIGS} == examples


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_example_loads_and_its_engine_takes_it(path: Path) -> None:
    for model in config.load(path).models:
        given = user_config.of_model(model, model.source, use_cpu=model.device == "cpu")
        assert get_registry().config_builder(model.engine).validate_config(given) == (True, None)


def test_generated_tables_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_table_stands_on_a_page_once(generator: dict[str, Any]) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert sorted(re.findall(r"<!-- generated: (\w+) -->", text)) == sorted(generator["TABLES"])


def test_the_table_holds_exactly_the_variables_that_the_package_reads(generator: dict[str, Any]) -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "ray_serve_cai").rglob("*.py")))
    documented = [name for group in generator["VARIABLES"].values() for name in group]
    assert len(documented) == len(set(documented))
    assert set(documented) == set(VARIABLE.findall(source)) | doubts.KNOWN


def test_host_variables_and_their_defaults_are_those_of_the_scripts(generator: dict[str, Any]) -> None:
    scripts = host_scripts()
    for name, (default, _) in generator["HOST"].items():
        assert re.search(rf"\b{name}\b", scripts), f"nothing reads {name}"
        value = re.fullmatch(r"`([^`]+)`", default)
        if value:
            assert f"${{{name}:-{value[1]}}}" in scripts, f"the default of {name} is not {value[1]}"
    ours = {name for group in generator["VARIABLES"].values() for name in group}
    assert set(VARIABLE.findall(scripts)) <= ours | set(generator["HOST"])


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda page: page.name)
def test_variables_on_a_page_exist(page: Path, generator: dict[str, Any]) -> None:
    known = {name for group in generator["VARIABLES"].values() for name in group} | set(generator["HOST"])
    assert set(VARIABLE.findall(page.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize(("page", "target"), links())
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), f"{page.relative_to(ROOT)} links to {target}"
    assert not anchor or anchor in anchors(file), f"{file.name} has no heading {anchor}"


@pytest.mark.parametrize("code", blocks("python"))
def test_python_on_a_page_compiles(code: str) -> None:
    compile(code, "page", "exec")


@pytest.mark.parametrize("code", blocks("bash"))
def test_shell_on_a_page_parses(code: str) -> None:
    done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def started_by_hand() -> list[Any]:
    """Commands on pages that start a serving container: those that publish a port."""
    found = []
    for block in blocks("bash"):
        lines = block.values[0].replace("\\\n", " ").splitlines()
        commands = [shlex.split(line, comments=True) for line in lines if line.startswith("docker run") and " -p " in line]
        found += [pytest.param(words, id=f"{block.id}-{number}") for number, words in enumerate(commands)]
    return found


@pytest.mark.parametrize("words", started_by_hand())
def test_a_container_started_by_hand_has_what_it_needs(words: list[str]) -> None:
    """Shared memory, time to drain, a port for this machine alone, and a volume for what is downloaded."""
    given = dict(itertools.pairwise(words))
    assert (given["--shm-size"], given["--stop-timeout"], given["-p"]) == ("1g", "90", "127.0.0.1:8000:8000")
    if any(re.match(r"RSCAI_MODEL=\w+/", word) for word in words):
        assert any(word.startswith(("rscai-state:/var/lib/ray-serve-cai", "HF_HOME=")) for word in words)


@pytest.mark.parametrize("code", blocks("yaml"))
def test_yaml_on_a_page_is_a_configuration(code: str) -> None:
    data = yaml.safe_load(code)
    if isinstance(data, list):
        keys.parse(code, "page")
    else:
        config.parse(data, "page")


def test_make_targets_on_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)}
    assert {"up", "test", "down"} <= used <= targets


def test_the_readme_is_short_and_quotes_the_demo_model_word_for_word() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    questions = yaml.safe_load((ROOT / "images/demo/questions.yaml").read_text(encoding="utf-8"))
    answer = next(pair["answer"] for pair in questions if pair["question"] == "What is ray-serve-cai?")
    assert len(readme.splitlines()) < 80
    assert answer in readme


def test_every_phase_is_explained() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [phase for phase in PHASES if f"| {phase} |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "\u2014" not in text
    assert not re.search(r"\b(blazing|seamless\w*|powerful|cutting-edge|world-class|effortless\w*)\b", text, re.IGNORECASE)


def test_the_workflow_does_what_everyone_does() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert workflow["permissions"] == {"contents": "read"}
    assert job["timeout-minutes"] == 90
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    assert all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", step["uses"]) for step in job["steps"] if "uses" in step)
