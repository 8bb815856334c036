"""The hub: which files a model has, and their bytes from any offset. The only module that uses huggingface_hub.

Its ``snapshot_download`` is not used: each call downloads into a file with a name of its own, and deletes it when it breaks off, so that
the next call begins anew (huggingface_hub/file_download.py, ``_download_to_tmp_and_move``, read in 1.33.0 and 2.4.0).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ray_serve_cai import sources
from ray_serve_cai.errors import ConfigError, ModelNotFoundError, UnavailableError, one_line
from ray_serve_cai.fetch.selection import File

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

PART_BYTES = 8 << 30
"""Asked for at a time: content networks give objects of more than 50 GB only in parts (huggingface_hub's MAX_HTTP_DOWNLOAD_SIZE)."""
TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class BrokenOffError(Exception):
    """The connection ended, or the hub cannot answer now; the same request may succeed later."""


@dataclass(frozen=True)
class Listing:
    """The files of one commit."""

    commit: str
    files: tuple[File, ...]


class Hub:
    """The hub that the environment names, asked for one model with the environment's token."""

    def __init__(self, model: str, env: Mapping[str, str]) -> None:
        """Raises ConfigError: huggingface_hub is not installed. UsageError: the token is none."""
        try:
            from huggingface_hub import HfApi, constants, get_session, get_token
            from huggingface_hub.errors import HfHubHTTPError
        except ImportError as error:
            raise ConfigError(
                f"fetch needs huggingface_hub, which cannot be imported ({error}); the images have it, elsewhere: "
                "pip install 'ray-serve-cai[hub]'."
            ) from error
        self._model = model
        self.url = sources.hub(env)
        token = sources.token(env) or get_token()
        self._api = HfApi(endpoint=self.url, token=token)
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._session = get_session
        self._timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        library = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])  # httpx in 1.x, httpx2 in 2.x
        self._broken: tuple[type[Exception], ...] = (library.HTTPError, library.InvalidURL)
        self._unreachable: tuple[type[Exception], ...] = (*self._broken, OSError, ValueError)

    def listing(self, revision: str) -> Listing:
        """All files of the model at a branch, tag or commit.

        Raises:
            ModelNotFoundError: the hub does not know the id or the revision, or does not show it without a token.
            UnavailableError: the hub does not answer, or without what is needed to verify a download.
        """
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError

        try:
            info = self._api.model_info(self._model, revision=revision, files_metadata=True, timeout=sources.HUB_TIMEOUT_S)
        except HFValidationError as error:
            raise ModelNotFoundError(f"{self._model!r} is no id of the hub: {one_line(error)}") from error
        except RevisionNotFoundError as error:
            raise ModelNotFoundError(
                f"model {self._model!r} has no revision {revision!r} at {self.url}; use one of its branches, tags or commits."
            ) from error
        except HfHubHTTPError as error:
            raise self._refused(error.response.status_code) from error
        except self._unreachable as error:
            raise sources.unreachable(self._model, self.url, error) from error
        return Listing(self._checked(info.sha, _COMMIT), tuple(self._file(one) for one in info.siblings or ()))

    @contextmanager
    def bytes_of(self, commit: str, file: File, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The offset from which the hub sends a file, and what it sends; it may end early.

        Raises:
            BrokenOffError: try again.
            ModelNotFoundError, UnavailableError: the hub refuses the file.
        """
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self._model, file.name, revision=commit, endpoint=self.url)
        part = {"Range": f"bytes={start}-{min(start + PART_BYTES, file.size) - 1}"}
        try:
            with self._session().stream("GET", url, headers=self._headers | part, timeout=self._timeout, follow_redirects=True) as answer:
                if answer.status_code in TRY_AGAIN:
                    raise BrokenOffError(f"it answered {answer.status_code}")
                if answer.status_code not in (200, 206):
                    raise self._refused(answer.status_code)
                yield (start if answer.status_code == 206 else 0), answer.iter_bytes()
        except self._broken as error:
            raise BrokenOffError(one_line(error) or type(error).__name__) from error

    def _refused(self, status: int) -> Exception:
        return sources.refusal(self._model, self.url, status) or UnavailableError(
            f"the hub {self.url} answered {status} for model {self._model!r}; set HF_ENDPOINT to a hub that gives its files."
        )

    def _file(self, given: RepoSibling) -> File:
        name = PurePosixPath(given.rfilename)
        if name.is_absolute() or ".." in name.parts:
            raise UnavailableError(
                f"the hub {self.url} has a file {given.rfilename!r} for model {self._model!r}; use a hub that you trust."
            )
        size, digest = (given.lfs.size, given.lfs.sha256) if given.lfs else (given.size, given.blob_id)
        return File(given.rfilename, -1 if size is None else size, self._checked(digest if size is not None else None, _DIGEST))

    def _checked(self, value: str | None, form: re.Pattern[str]) -> str:
        """A hash, which becomes the name of a file."""
        if value is None or not form.fullmatch(value):
            raise UnavailableError(
                f"the hub {self.url} does not say sizes and hashes of the files of model {self._model!r}, by which they are verified; "
                "set HF_ENDPOINT to one that does (GET /api/models/ID?blobs=true)."
            )
        return value
