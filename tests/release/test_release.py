"""Each step of a release as its script, in a clone: with a registry and cosign from Debian's packages, and a key in place of GitHub's identity."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.containers import ROOT, free_port, run, until

pytestmark = [pytest.mark.issue(8), pytest.mark.full]
TAG = "v0.1.0"


def unpacked(package: str, into: Path) -> Path | None:
    """The program of a Debian package that is not installed for this; None where apt has no such package."""
    if not shutil.which("apt-get"):
        return None
    into.mkdir()
    for name in (package, f"{package}/trixie"):
        if subprocess.run(["apt-get", "download", "-qq", name], cwd=into, capture_output=True, check=False).returncode == 0:
            (deb,) = into.glob("*.deb")
            run("dpkg-deb", "--extract", str(deb), str(into))
            return into / "usr/bin" / package
    return None


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on this machine; its host and port."""
    directory = tmp_path_factory.mktemp("registry")
    program = unpacked("docker-registry", directory / "package")
    if program is None:
        pytest.skip("apt has no package docker-registry here")
    port = free_port()
    (directory / "config.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
    )
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen([program, "serve", directory / "config.yml"], stdout=log, stderr=log) as served,
    ):
        until("the registry answers", lambda: httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False).status_code == 200, 30)
        yield f"127.0.0.1:{port}"
        served.terminate()
    for image in run(
        "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"127.0.0.1:{port}/owner/ray-serve-cai"
    ).stdout.split():
        run("docker", "image", "rm", image)


@pytest.fixture(scope="module")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = unpacked("cosign", tmp_path_factory.mktemp("cosign") / "package")
    if program is None:
        pytest.skip("apt has no package cosign here")
    return program


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone whose changelog has the release, with this tree's environment."""
    made = tmp_path_factory.mktemp("clone") / "repository"
    run("git", "clone", "--quiet", str(ROOT), str(made))
    changelog = made / "CHANGELOG.md"
    heading = "## [Unreleased]\n\nTo be released as 0.1.0.\n"
    changelog.write_text(changelog.read_text().replace(heading, "## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n", 1))
    (made / "build").mkdir()
    (made / "build/venv").symlink_to(ROOT / "build/venv")
    os.utime(made / "pyproject.toml", (0, 0))  # older than the environment, which is not made anew
    yield made
    for file in made.glob("build/release/*.pushed.json"):
        run("docker", "image", "rm", *(f"ray-serve-cai:{tag}" for tag in json.loads(file.read_text())["tags"]), check=False)


def step(clone: Path, name: str, *arguments: str, code: int = 0, timeout: float = 1500, **environment: str) -> str:
    done = subprocess.run(
        [clone / ".ci/release" / name, *arguments],
        cwd=clone,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout if code == 0 else done.stderr


def tags(registry: str) -> set[str]:
    """What people see in the registry; cosign keeps signatures under tags of its own."""
    listed = httpx.get(f"http://{registry}/v2/owner/ray-serve-cai/tags/list", trust_env=False).json()["tags"]
    return {tag for tag in listed if not tag.startswith("sha256-")}


def digest(registry: str, tag: str) -> str:
    """What a tag means, without what a registry may convert for old clients."""
    kinds = ("docker.distribution.manifest.list.v2", "docker.distribution.manifest.v2", "oci.image.index.v1", "oci.image.manifest.v1")
    headers = {"Accept": ", ".join(f"application/vnd.{kind}+json" for kind in kinds)}
    answer = httpx.head(f"http://{registry}/v2/owner/ray-serve-cai/manifests/{tag}", headers=headers, trust_env=False)
    return answer.raise_for_status().headers["Docker-Content-Digest"]


def attested(cosign: str, *arguments: str) -> dict[str, Any]:
    """The statement of an attestation that is verified."""
    envelope = json.loads(run(cosign, "verify-attestation", *arguments).stdout.splitlines()[0])
    return dict(json.loads(base64.b64decode(envelope["payload"])))


def test_all_steps_of_a_release(clone: Path, registry: str, cosign: Path) -> None:
    repository = f"{registry}/owner/ray-serve-cai"
    assert "- `make up`" in step(clone, "check", TAG)
    assert "pyproject.toml has version 0.1.0" in step(clone, "check", "v0.2.0", code=65)

    began = time.monotonic()
    step(clone, "images", "vllm-cpu")
    print(f"images: {time.monotonic() - began:.0f} s")

    step(clone, "push", "vllm-cpu", repository)
    release = clone / "build/release"
    pushed = {name: json.loads((release / f"{name}.pushed.json").read_text()) for name in ("vllm-cpu", "vllm-cpu-cai")}
    assert tags(registry) == {tag for told in pushed.values() for tag in told["tags"] if tag.startswith("sha-")}
    for name, told in pushed.items():
        subject = f"{repository}@{told['digest']}"
        run("docker", "pull", "--quiet", subject, timeout=600)
        assert run("docker", "image", "inspect", "--format", "{{.Id}}", subject).stdout.strip() == told["id"], name
        derived = run("build/venv/bin/python", "-m", "images.tagger", f"ray-serve-cai:{name}").stdout.split()
        assert [f"ray-serve-cai:{tag}" for tag in told["tags"]] == derived

    keys = {"COSIGN_PASSWORD": "", "PATH": f"{cosign.parent}:{os.environ['PATH']}"}
    subprocess.run([cosign, "generate-key-pair"], cwd=clone / "build", env=os.environ | keys, capture_output=True, check=True)
    files = [f"build/release/{name}.pushed.json" for name in pushed]
    assert step(clone, "sign", *files, DRY_RUN="1").count("cosign attest") == 4
    step(clone, "sign", *files, COSIGN_OPTIONS="--key build/cosign.key --tlog-upload=false", **keys)
    assert step(clone, "tag", *files, DRY_RUN="1").count("cosign copy") == sum(len(told["tags"]) for told in pushed.values())
    step(clone, "tag", *files, **keys)
    assert tags(registry) == {tag for told in pushed.values() for tag in told["tags"]}

    check = ["--key", str(clone / "build/cosign.pub"), "--insecure-ignore-tlog=true"]
    for told in pushed.values():
        for tag in told["tags"]:
            assert digest(registry, tag) == told["digest"], tag
            run(str(cosign), "verify", *check, f"{repository}:{tag}")
        name = f"{repository}:{told['tags'][0]}"
        bill = attested(str(cosign), *check, "--type", "cyclonedx", name)
        assert bill["predicate"] == json.loads((release / f"{told['image']}.cdx.json").read_text())
        source = attested(str(cosign), *check, "--type", "slsaprovenance1", name)
        assert source["subject"][0]["digest"]["sha256"] == told["digest"].removeprefix("sha256:")
        label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
        commit = run("docker", "image", "inspect", "--format", label, told["id"]).stdout.strip()
        assert source["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"] == commit == told["revision"]
    strangers = clone / "build/strangers"
    strangers.mkdir()
    subprocess.run([cosign, "generate-key-pair"], cwd=strangers, env=os.environ | keys, capture_output=True, check=True)
    wrong = ["--key", str(strangers / "cosign.pub"), *check[2:]]
    assert run(str(cosign), "verify", *wrong, f"{repository}@{pushed['vllm-cpu']['digest']}", check=False).returncode != 0

    step(clone, "push", "vllm-cpu", repository)  # the same image, a second time
    exact = pushed["vllm-cpu"]["tags"][0]
    run(str(cosign), "copy", "--force", f"{repository}@{pushed['vllm-cpu-cai']['digest']}", f"{repository}:{exact}")
    assert f"{exact} is in the registry as " in step(clone, "push", "vllm-cpu", repository, code=65)

    for target in (["bundle", "TARGETS=vllm-cpu"], ["package"]):
        subprocess.run(["make", *target], cwd=clone, capture_output=True, check=True, timeout=900)
    told = step(clone, "publish", TAG, DRY_RUN="1")
    assert told.startswith(f"gh release create {TAG} --title {TAG} --notes-file build/release/notes.txt --verify-tag ")
    for file in (
        "vllm-cpu.pushed.json",
        "vllm-cpu.cdx.json",
        "vllm-cpu.provenance.json",
        "vllm-cpu.md",
        "ray-serve-cai-0.1.0-vllm0.32.0-cpu.tar",
        ".whl",
        ".tar.gz",
        "SHA256SUMS",
    ):
        assert file in told
    downloaded = clone / "build/downloaded"
    downloaded.mkdir()
    for file in told.split():
        if file.startswith("build/") and not file.endswith("notes.txt"):
            (downloaded / Path(file).name).symlink_to(clone / file)
    assert len(list(downloaded.iterdir())) >= 12
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=downloaded, check=True)
    (wheel,) = (clone / "build/dist").glob("*.whl")
    assert zipfile.is_zipfile(wheel)
    (archive,) = (clone / "build/bundle").glob("*.tar")
    assert tarfile.is_tarfile(archive)


def test_the_newest_engines_are_tried_and_proposed(clone: Path) -> None:
    """The clone's pins are older than what the index has: the locks become those of this tree, or newer ones."""
    pins = clone / "images/versions.json"
    current = json.loads(pins.read_text())["images"]["vllm-cpu"]["packages"]["vllm-cpu"]
    pins.write_text(
        pins.read_text().replace(f'"vllm-cpu": "{current}"', '"vllm-cpu": "0.0.1"').replace(f'"vllm": "{current}"', '"vllm": "0.0.1"')
    )
    run(
        "git",
        "-C",
        str(clone),
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "commit",
        "--quiet",
        "--all",
        "--message",
        "old pins",
    )
    step(clone, "newest", timeout=2400)
    out = clone / "build/newest"
    changes = (out / "changes.txt").read_text()
    assert "vllm-cpu: vllm-cpu 0.0.1 -> " in changes
    assert "vllm-cuda: vllm 0.0.1 -> " in changes
    assert (out / "results/locks.txt").read_text().startswith("passed\n")
    run("git", "-C", str(clone), "checkout", "--quiet", ".")  # as the next job has it
    try:  # the images that are here keep their names
        step(clone, "try", "cpu", PYTEST="--collect-only -q --no-cov", TAG_PREFIX="rscai-test-newest:", timeout=2400)
    finally:
        tried = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "rscai-test-newest").stdout.split()
        run("docker", "image", "rm", *tried, check=False)
    assert set(tried) == {f"rscai-test-newest:{image}" for image in ("vllm-cpu", "sglang-cpu", "vllm-cpu-cai")}
    assert '"0.0.1"' not in pins.read_text()
    result = (out / "results/cpu.txt").read_text()
    assert result.startswith("passed\n"), result
    proposed = step(clone, "propose", DRY_RUN="1")
    assert "git push --force origin newest-engines" in proposed
    assert "gh pr create --title Newest engines: vllm-cpu: vllm-cpu 0.0.1 -> " in proposed
    assert proposed.endswith(" --draft\n")  # nobody tried the images for CUDA
    body = (out / "body.md").read_text()
    for words in ("| cpu | passed |", "| locks | passed |", "| vllm-cuda | no result |", "~~~~diff\n"):
        assert words in body
