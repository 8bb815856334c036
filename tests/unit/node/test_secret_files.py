from pathlib import Path

import pytest

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import secret_files

SECRET = "very-secret-value"


@pytest.mark.parametrize("name", secret_files.SECRETS)
def test_a_secret_comes_from_its_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    assert secret_files.read({f"{name}_FILE": str(file), "OTHER": "1"}) == {name: SECRET, "OTHER": "1"}
    assert secret_files.read({f"{name}_FILE": str(file), name: " "}) == {name: SECRET}


def test_without_files_nothing_changes() -> None:
    env = {"RSCAI_TOKEN": SECRET, "HF_TOKEN_FILE": "", "A": "b"}
    assert secret_files.read(env) == {"RSCAI_TOKEN": SECRET, "A": "b"}


def test_both_forms_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    with pytest.raises(UsageError, match="^RSCAI_TOKEN and RSCAI_TOKEN_FILE are both set; unset one of them") as caught:
        secret_files.read({"RSCAI_TOKEN": SECRET, "RSCAI_TOKEN_FILE": str(file)})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory; mount the secret there"), (b"\xff\xfe", "no text"), (b" \n", "which is empty; write the secret")],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"^HF_TOKEN_FILE is '{file}'.*{said}"):
        secret_files.read({"HF_TOKEN_FILE": str(file)})


def test_a_file_that_this_user_cannot_read(without_rights: None) -> None:
    with pytest.raises(
        UsageError, match=r"^HF_TOKEN_FILE is '/etc/shadow': Permission denied; mount the secret there, readable for this user"
    ):
        secret_files.read({"HF_TOKEN_FILE": "/etc/shadow"})
