"""Whether an image was built from the commit that its label names: the build id of that commit's sources is the image's own.

A build from files that were not committed names the last commit all the same, so only this tells.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from images.manifest import build_id, inputs
from images.matrix import ROOT


def doubt(commit: str, image: str, found: str) -> str:
    """Why an image with the build id ``found`` should not be tagged with a commit; empty where nothing speaks against it.

    Outside a checkout that has the commit, the label is all there is, and is believed.
    """
    if not commit:
        return f"{image} was built outside a checkout, so it gets no tag of a commit"
    made = build_id_at(commit, image)
    if made in (None, found):
        return ""
    return (
        f"{image} has build id {found} and commit {commit[:12]} gives {made}: it was built from files that were not committed, "
        f"so it gets no tag of a commit; commit them and build it again: images/build.sh {image}"
    )


def build_id_at(commit: str, image: str, checkout: Path = ROOT) -> str | None:
    """The build id that a commit's sources give an image, or None where the commit is not known here.

    """
    known = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=checkout, capture_output=True, check=False)
    if known.returncode:
        return None
    saved = subprocess.run(["git", "archive", commit], cwd=checkout, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=io.BytesIO(saved)) as files:
        files.extractall(scratch, filter="data")
        return build_id(inputs(Path(scratch), image))
