"""What is pushed, and what never moves; and the provenance that goes with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images import provenance, push
from images.errors import ContradictionError
from images.known import learn
from tests.unit.images.conftest import REVISION, FakeDaemon

pytestmark = pytest.mark.issue(8)
REPOSITORY = "registry.example.com/ray-serve-cai"
TAGS = ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu", f"sha-{REVISION[:12]}-vllm-cpu", "20261126-vllm-cpu"]


class Registry(FakeDaemon):
    """A Docker with a registry behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, str] = {}
        self.known: set[str] = set()

    def pushed(self, name: str) -> str | None:
        return self.there.get(name)

    def digests(self, name: str, repository: str) -> set[str]:
        return self.known

    def push(self, repository: str, tag: str) -> str:
        self.there[f"{repository}:{tag}"] = "sha256:new"
        return "sha256:new"


@pytest.fixture
def registry() -> Registry:
    return Registry()


def done(registry: Registry, *, replace: bool = False) -> dict[str, object]:
    return push.push(registry, learn(registry, registry.name), REPOSITORY, replace=replace)  # type: ignore[arg-type]


def test_all_tags_are_pushed(registry: Registry) -> None:
    told = done(registry)
    assert told == {"image": "vllm-cpu", "repository": REPOSITORY, "digest": "sha256:new", "tags": TAGS, "id": "sha256:abc"}
    assert registry.there == {f"{REPOSITORY}:{tag}": "sha256:new" for tag in TAGS}
    assert registry.tagged == [("sha256:abc", REPOSITORY, TAGS)]


def test_an_exact_tag_never_moves(registry: Registry) -> None:
    registry.there[f"{REPOSITORY}:{TAGS[0]}"] = "sha256:old"
    with pytest.raises(ContradictionError, match=f"{TAGS[0]} is in the registry as sha256:old, another image; raise the version"):
        done(registry)
    assert registry.there == {f"{REPOSITORY}:{TAGS[0]}": "sha256:old"}
    assert done(registry, replace=True)["digest"] == "sha256:new"


def test_the_same_image_may_be_pushed_again(registry: Registry) -> None:
    registry.there[f"{REPOSITORY}:{TAGS[0]}"] = "sha256:old"
    registry.known = {"sha256:old"}
    assert done(registry)["digest"] == "sha256:new"


def test_where_an_image_came_from() -> None:
    env = {
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_REF": "refs/tags/v0.1.0",
        "GITHUB_RUN_ID": "7",
        "GITHUB_WORKFLOW_REF": "owner/name/.github/workflows/release.yml@refs/tags/v0.1.0",
    }
    made = provenance.predicate("vllm-cpu", REVISION, {"images/locks/a.txt": "ab"}, env)
    assert made["runDetails"]["builder"]["id"] == "https://github.com/owner/name/.github/workflows/release.yml@refs/tags/v0.1.0"
    assert made["runDetails"]["metadata"]["invocationId"] == "https://github.com/owner/name/actions/runs/7/attempts/1"
    first, second = made["buildDefinition"]["resolvedDependencies"]
    assert first == {"uri": "git+https://github.com/owner/name@refs/tags/v0.1.0", "digest": {"gitCommit": REVISION}}
    assert second == {"uri": "file:images/locks/a.txt", "digest": {"sha256": "ab"}}
    assert provenance.predicate("vllm-cpu", REVISION, {}, {})["runDetails"]["builder"]["id"].endswith("#local")


def test_provenance_as_a_file(tmp_path: Path) -> None:
    provenance.run(["vllm-cpu-cai", "--json", str(tmp_path / "p.json")])
    uris = [one["uri"] for one in json.loads((tmp_path / "p.json").read_text())["buildDefinition"]["resolvedDependencies"]]
    assert "file:images/locks/tools.txt" in uris
    assert "file:images/locks/vllm-cpu/torch.txt" in uris
    with pytest.raises(ContradictionError, match="there is no image 'vllm-gpu'"):
        provenance.run(["vllm-gpu", "--json", str(tmp_path / "q.json")])
