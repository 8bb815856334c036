"""What follows a push, by digest: signatures and attestations, and then the tags that people use.

    python3 -m images.pushed sign build/release/vllm-cpu.pushed.json
    python3 -m images.pushed tag build/release/*.pushed.json --dry-run      # prints the commands

Reads what images.push wrote. cosign does all of it; it takes the identity of the GitHub workflow that it runs in, or the key that
COSIGN_OPTIONS names. Bill of materials and provenance lie beside each file: NAME.cdx.json, NAME.provenance.json. Standard library only.

Exit codes: 64 the command line cannot be used, 65 a file is not what images.push writes, 66 there is no such file, 69 cosign cannot
be run or ended with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from images import command
from images.errors import ContradictionError, DaemonError, NoImageError

Command = list[str]
FORMS = {
    "digest": (re.compile(r"sha256:[0-9a-f]{64}"), "sha256: and 64 hexadecimal digits"),
    "revision": (re.compile(r"[0-9a-f]{40}"), "40 hexadecimal digits"),
}


@dataclass(frozen=True)
class Pushed:
    """An image in a registry. ``id`` is Docker's own for it; ``tags`` are all that it is to have, the most exact first.

    ``revision`` is the commit that it was built from, as its label says.
    """

    image: str
    repository: str
    digest: str
    tags: list[str]
    id: str
    revision: str

    @property
    def subject(self) -> str:
        """What is signed: a name that can only ever mean these contents."""
        return f"{self.repository}@{self.digest}"

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def read(file: Path) -> Pushed:
    """What images.push wrote.

    Raises:
        NoImageError: there is no such file.
        ContradictionError: it holds something else, or no digest, or no revision.
    """
    try:
        told = Pushed(**json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise NoImageError(f"{file} cannot be read ({error.strerror}); images.push writes it: .ci/release/push.") from error
    except (TypeError, ValueError) as error:
        raise ContradictionError(f"{file} is not what images.push writes ({error}); push the image again: .ci/release/push.") from error
    for key, (form, words) in FORMS.items():
        value = getattr(told, key)
        if not form.fullmatch(str(value)):
            raise ContradictionError(f"{file} has the {key} {value!r}, and a {key} is {words}; push the image again: .ci/release/push.")
    return told


def signing(pushed: Pushed, beside: Path, options: Sequence[str]) -> list[Command]:
    """The commands that sign an image and attest what is in it and where it comes from."""
    attest = ["cosign", "attest", "--yes", *options]
    return [
        ["cosign", "sign", "--yes", *options, pushed.subject],
        [*attest, "--type", "cyclonedx", "--predicate", str(beside / f"{pushed.image}.cdx.json"), pushed.subject],
        [*attest, "--type", "slsaprovenance1", "--predicate", str(beside / f"{pushed.image}.provenance.json"), pushed.subject],
    ]


def tagging(pushed: Pushed) -> list[Command]:
    """The commands that give an image its tags in the registry.

    A tag must mean the very digest that is signed. `docker buildx imagetools create` would wrap it into an index with another one.
    """
    return [["cosign", "copy", "--force", pushed.subject, f"{pushed.repository}:{tag}"] for tag in pushed.tags]


def perform(commands: Sequence[Command], *, dry_run: bool) -> None:
    """Print each command and, unless it is a dry run, run it to its end.

    Raises:
        DaemonError: one cannot be run, or ended with an error; those after it were not begun.
    """
    for words in commands:
        line = shlex.join(words)
        print(line, flush=True)
        if dry_run:
            continue
        try:
            code = subprocess.run(words, check=False).returncode
        except FileNotFoundError as error:
            raise DaemonError(f"there is no {words[0]} on the PATH; install it: docs/releasing.md.") from error
        if code:
            raise DaemonError(f"{line!r} ended with exit code {code}; what it says stands above. It can be run again.")


def run(arguments: Sequence[str]) -> None:
    """Do what the command line says.

    Raises:
        ImageError: it cannot be done.
    """
    parser = command.Parser(prog="python3 -m images.pushed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sign", "tag"))
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="for example build/release/vllm-cpu.pushed.json")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    given = parser.parse_args(arguments)
    options = shlex.split(os.environ.get("COSIGN_OPTIONS", ""))
    images = [(read(file), file.parent) for file in given.files]
    for pushed, beside in images:
        perform(signing(pushed, beside, options) if given.what == "sign" else tagging(pushed), dry_run=given.dry_run)


if __name__ == "__main__":
    sys.exit(command.main(run, None))
