"""What follows a push, as commands; none of them is run here but one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from images import pushed
from images.errors import ContradictionError, DaemonError, NoImageError
from images.pushed import Pushed
from tests.unit.images.conftest import REVISION

pytestmark = pytest.mark.issue(8)
DIGEST = f"sha256:{'ab' * 32}"
IT = Pushed("vllm-cpu", "registry.example.com/r", DIGEST, ["0.1.0-vllm0.32.0-cpu", "0.1-vllm-cpu"], "sha256:def", REVISION)
SUBJECT = f"registry.example.com/r@{DIGEST}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "vllm-cpu.pushed.json"
    made.write_text(IT.as_json())
    return made


def test_it_is_read_as_it_was_written(file: Path) -> None:
    assert pushed.read(file) == IT


@pytest.mark.parametrize("text", ["", "[]", "{}", IT.as_json().replace('"id"', '"key"')])
def test_something_else(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ContradictionError, match="is not what images.push writes"):
        pushed.read(file)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:abc", f"sha512:{'ab' * 32}"])
def test_a_digest_that_is_none(file: Path, digest: str) -> None:
    file.write_text(IT.as_json().replace(DIGEST, digest))
    with pytest.raises(ContradictionError, match=f"vllm-cpu.pushed.json has the digest '{digest}', and a digest is sha256: and 64"):
        pushed.read(file)


@pytest.mark.parametrize("revision", ["", "HEAD", REVISION[:12]])
def test_a_revision_that_is_none(file: Path, revision: str) -> None:
    file.write_text(IT.as_json().replace(REVISION, revision))
    with pytest.raises(ContradictionError, match=f"has the revision '{revision}', and a revision is 40 hexadecimal digits; push"):
        pushed.read(file)


def test_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoImageError, match=r"none.json cannot be read \(No such file or directory\); images.push writes it"):
        pushed.read(tmp_path / "none.json")


def test_a_signature_is_of_a_digest() -> None:
    made = pushed.signing(IT, Path("d"), ["--key", "k"])
    assert [words[:5] for words in made] == [["cosign", what, "--yes", "--key", "k"] for what in ("sign", "attest", "attest")]
    assert {words[-1] for words in made} == {SUBJECT}
    assert made[1][5:-1] == ["--type", "cyclonedx", "--predicate", "d/vllm-cpu.cdx.json"]
    assert made[2][5:-1] == ["--type", "slsaprovenance1", "--predicate", "d/vllm-cpu.provenance.json"]


def test_tags_are_of_what_is_signed() -> None:
    assert pushed.tagging(IT) == [["cosign", "copy", "--force", SUBJECT, f"registry.example.com/r:{tag}"] for tag in IT.tags]


def test_a_dry_run_prints_all_commands(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIGN_OPTIONS", "--key 'my key'")
    monkeypatch.setenv("PATH", "")
    pushed.run(["sign", str(file), "--dry-run"])
    pushed.run(["tag", str(file), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + len(IT.tags)
    assert lines[0] == f"cosign sign --yes --key 'my key' {SUBJECT}"


def test_the_first_failure_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DaemonError, match="'false' ended with exit code 1"):
        pushed.perform([["true"], ["false"], ["touch", str(tmp_path / "late")]], dry_run=False)
    assert capfd.readouterr().out.split() == ["true", "false"]
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DaemonError, match="there is no rscai-none on the PATH"):
        pushed.perform([["rscai-none"]], dry_run=False)
    assert capfd.readouterr().out == "rscai-none\n"
