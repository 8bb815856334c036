"""What is pushed, and what never moves; and the provenance that goes with it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from images import provenance, push, pushed
from images.errors import ContradictionError, DaemonError, NoImageError
from images.known import learn
from images.pushed import Pushed
from tests.unit.images.conftest import REVISION, FakeDaemon

pytestmark = pytest.mark.issue(8)
REPOSITORY = "registry.example.com/ray-serve-cai"
NEW = f"sha256:{'ab' * 32}"
TAGS = ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu", f"sha-{REVISION[:12]}-vllm-cpu", "20261126-vllm-cpu"]


class Registry(FakeDaemon):
    """A Docker with a registry behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, str] = {}
        self.ids = {NEW: "sha256:abc"}

    def pushed(self, name: str) -> str | None:
        return self.there.get(name)

    def id_of(self, subject: str) -> str | None:
        return self.ids.get(subject.partition("@")[2])

    def push(self, repository: str, tag: str) -> str:
        self.there[f"{repository}:{tag}"] = NEW
        return NEW


@pytest.fixture
def registry() -> Registry:
    return Registry()


def done(registry: Registry, *, replace: bool = False) -> Pushed:
    return push.push(registry, learn(registry, registry.name), REPOSITORY, replace=replace)  # type: ignore[arg-type]


@pytest.mark.usefixtures("daemon")  # no commit is known here, so the label is believed
def test_it_is_pushed_under_its_commit_and_the_other_tags_wait(registry: Registry) -> None:
    assert done(registry) == Pushed("vllm-cpu", REPOSITORY, NEW, TAGS, "sha256:abc", REVISION)
    assert registry.there == {f"{REPOSITORY}:{TAGS[2]}": NEW}
    assert registry.tagged == [("sha256:abc", REPOSITORY, TAGS[2:3])]


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(("there", "replace"), [(NEW, False), ("sha256:old", True)], ids=["the same", "replace"])
def test_what_may_be_pushed_again(registry: Registry, there: str, replace: bool) -> None:
    registry.there[f"{REPOSITORY}:{TAGS[0]}"] = there
    assert done(registry, replace=replace).digest == NEW


@pytest.mark.usefixtures("daemon")
def test_an_exact_tag_never_moves_and_nothing_is_pushed(registry: Registry) -> None:
    registry.there[f"{REPOSITORY}:{TAGS[0]}"] = "sha256:old"
    with pytest.raises(ContradictionError, match=f"{TAGS[0]} is in the registry as sha256:old, which is another image than ray-serve-cai:vllm-cpu"):
        done(registry)
    assert list(registry.there.values()) == ["sha256:old"]
    assert registry.tagged == []


@pytest.mark.usefixtures("daemon")
def test_the_same_image_under_another_digest(registry: Registry) -> None:
    """Layers may have been compressed by another Docker."""
    registry.there[f"{REPOSITORY}:{TAGS[0]}"] = "sha256:old"
    registry.ids["sha256:old"] = "sha256:abc"
    with pytest.raises(ContradictionError, match=f"as sha256:old, and the same image, packed otherwise, is {NEW} now; raise"):
        done(registry)


def test_what_was_not_committed_is_not_pushed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.revision.build_id_at", lambda commit, image: "another")
    with pytest.raises(ContradictionError, match=r"ray-serve-cai:vllm-cpu is not pushed: .* built from files that were not committed"):
        done(registry)
    assert registry.there == {}


@pytest.mark.usefixtures("daemon")
def test_the_command_writes_what_follows_reads(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(push, "connect", lambda: nullcontext(registry))
    arguments = [registry.name, "--to", REPOSITORY]
    push.run([*arguments, "--json", str(tmp_path / "it.json")])
    assert pushed.read(tmp_path / "it.json") == done(registry)


@pytest.mark.usefixtures("daemon")
def test_the_command_prints(registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(push, "connect", lambda: nullcontext(registry))
    push.run([registry.name, "--to", REPOSITORY])
    assert json.loads(capsys.readouterr().out)["tags"] == TAGS


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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose locks have changed since its first commit."""
    directory = tmp_path / "checkout"
    for text in ("first", "second"):
        for name in ("images/locks/vllm-cpu/torch.txt", "images/locks/tools.txt"):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        git(directory, "init", "--quiet")
        git(directory, "add", ".")
        git(directory, "commit", "--quiet", "--message", text)
    return directory


def git(checkout: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(("commit", "text"), [("HEAD~1", b"first"), ("HEAD", b"second")])
def test_the_locks_are_those_of_the_images_commit(checkout: Path, commit: str, text: bytes) -> None:
    (checkout / "images/locks/tools.txt").write_text("not committed")
    digest = hashlib.sha256(text).hexdigest()
    for image in ("vllm-cpu", "vllm-cpu-cai"):
        found = provenance.locks_at(git(checkout, "rev-parse", commit), image, checkout)
        assert found == dict.fromkeys(("images/locks/vllm-cpu/torch.txt", "images/locks/tools.txt"), digest)


def test_a_commit_or_an_image_that_is_not_there(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoImageError, match=f"vllm-cpu was built from commit {REVISION}, which is not in .*; fetch it: git fetch"):
        provenance.locks_at(REVISION, "vllm-cpu", checkout)
    commit = git(checkout, "rev-parse", "HEAD")
    with pytest.raises(ContradictionError, match=f"commit {commit} has no locks in images/locks/vllm-gpu, so no image 'vllm-gpu'"):
        provenance.locks_at(commit, "vllm-gpu", checkout)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DaemonError, match="there is no git on the PATH"):
        provenance.locks_at(commit, "vllm-cpu", checkout)


def test_provenance_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "locks_at", lambda commit, image: {f"images/locks/{image}.txt": commit})
    (tmp_path / "it.json").write_text(Pushed("vllm-cpu-cai", REPOSITORY, NEW, TAGS, "sha256:abc", REVISION).as_json())
    provenance.run([str(tmp_path / "it.json"), "--json", str(tmp_path / "p.json")])
    source, lock = json.loads((tmp_path / "p.json").read_text())["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": REVISION}
    assert lock == {"uri": "file:images/locks/vllm-cpu-cai.txt", "digest": {"sha256": REVISION}}
    with pytest.raises(NoImageError, match="none.json cannot be read"):
        provenance.run([str(tmp_path / "none.json"), "--json", str(tmp_path / "q.json")])
