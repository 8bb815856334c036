"""How many workers a cluster has, and its file with other counts. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ray_serve_cai.cai.config import CaiFile
from ray_serve_cai.cai.models import Application
from ray_serve_cai.cai.requests import owned
from ray_serve_cai.errors import UsageError


def counts(wanted: CaiFile, applications: Iterable[Application]) -> dict[str, int]:
    """How many workers each group of a file has now; none where there is no cluster."""
    own = [one.name for one in owned(applications, wanted.cai.name)]
    return {
        group: sum(bool(re.fullmatch(rf"{re.escape(f'{wanted.cai.name}-{group}')}-\d+", name)) for name in own)
        for group in (wanted.cai.workers if own else ())
    }


def scaled(wanted: CaiFile, changes: Mapping[str, int]) -> CaiFile:
    """The configuration with other counts of workers.

    Raises:
        UsageError: a group is not in it.
    """
    unknown = sorted(changes.keys() - wanted.cai.workers.keys())
    if unknown:
        known = ", ".join(wanted.cai.workers) or "none"
        raise UsageError(f"there is no group {unknown[0]!r}; the file's groups are: {known}.")
    groups = {
        name: group.model_copy(update={"count": changes[name]}) if name in changes else group for name, group in wanted.cai.workers.items()
    }
    return wanted.model_copy(update={"cai": wanted.cai.model_copy(update={"workers": groups})})
