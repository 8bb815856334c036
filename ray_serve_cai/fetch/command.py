"""What ``ray-serve-cai fetch`` does: find out what is to come, wait for one's turn, check the disk, download, verify, link."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ray_serve_cai import sources
from ray_serve_cai.errors import ModelNotFoundError, UnavailableError, UsageError, counted, sized
from ray_serve_cai.fetch import lock
from ray_serve_cai.fetch.hub import Hub, Listing
from ray_serve_cai.fetch.lock import Say
from ray_serve_cai.fetch.selection import File, split
from ray_serve_cai.fetch.store import Store
from ray_serve_cai.fetch.transfer import Transfer

NAMES_SHOWN = 4


@dataclass(frozen=True)
class Fetched:
    """A model that is there: its commit at the hub (None for one that is no model of the hub), its size, and what came over the network."""

    model: str
    revision: str | None
    path: str
    bytes: int
    downloaded_bytes: int = 0


def run(source: str, env: Mapping[str, str], *, revision: str = sources.MAIN, verify: bool = False, as_json: bool = False) -> int:
    """Fetch, with progress on stderr and the result on stdout."""
    began = time.monotonic()
    try:
        fetched = fetch(source, env, revision=revision, verify=verify, say=lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print("interrupted: what is there stays; run the command again, and it goes on from there.", file=sys.stderr, flush=True)
        raise
    if as_json:
        print(json.dumps(asdict(fetched) | {"seconds": round(time.monotonic() - began, 1)}))
    elif fetched.revision is None:
        print(f"{fetched.path}: nothing is to be fetched")
    else:
        print(f"{fetched.path}: use it with HF_HUB_OFFLINE=1")
    return 0


def fetch(source: str, env: Mapping[str, str], *, revision: str, verify: bool, say: Say) -> Fetched:
    """Have a model in the cache.

    Args:
        source: as in a configuration; what is shipped or a path is there already.
        env: HF_HOME or HF_HUB_CACHE for the cache, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
        revision: a branch, a tag or a commit.
        verify: hash also what is there already.
        say: takes lines for people.

    Raises:
        ConfigError: huggingface_hub is not installed.
        ModelNotFoundError: no such path, id or revision, or the hub refuses it, or it is no model that an engine loads.
        ResourceError: the disk has no room, or cannot be written or locked.
        UnavailableError: the hub does not answer, the download broke off, or a file came wrong twice.
        UsageError: HF_HUB_OFFLINE is set, or the token is none.
    """
    model = sources.resolve(source)
    if model.startswith("/") or Path(model).exists():
        return Fetched(source, None, model, _size(Path(model)))
    there = None if verify else sources.cached(model, env, revision)
    if sources.is_offline(env):
        if there is None:
            raise UsageError(f"HF_HUB_OFFLINE is set, so that model {model!r} cannot be fetched or verified; unset it for this command.")
        return Fetched(model, there.name, str(there), _size(there))
    hub = Hub(model, env)
    try:
        listing = hub.listing(revision)
    except UnavailableError as error:
        if there is None:
            raise
        say(f"the cache has all of it, as it was when it was fetched: {error}")
        return Fetched(model, there.name, str(there), _size(there))
    files, left_out = split(listing.files)
    if not any(file.name == "config.json" for file in files):
        raise ModelNotFoundError(
            f"model {model!r} of the hub holds no config.json, which engines need; use a model in Hugging Face's format."
        )
    store = Store(model, sources.repository(model, env))
    received = 0
    with lock.held(store.lock, say) as note:

        def tell(line: str) -> None:
            say(line)
            note(line)

        missing = _missing(store, listing, files, tell if verify else None)
        if missing:
            transfer = Transfer(model, hub, store, listing.commit, missing)
            store.check_room(transfer.missing)
            tell(f"{model} at {listing.commit[:12]}: {counted(len(missing), 'file')}, {sized(transfer.missing)} to come from {hub.url}")
            if left_out:
                tell(_said(left_out))
            transfer.run(tell)
            received = transfer.received
        path = store.link(listing, files, revision)
    if not sources.is_complete(path):
        raise ModelNotFoundError(
            f"model {model!r} at {hub.url} lacks weights, or some that its index names; use another model, or another revision."
        )
    return Fetched(model, listing.commit, str(path), sum(file.size for file in files), received)


def _missing(store: Store, listing: Listing, files: list[File], verifying: Say | None) -> list[File]:
    """What is not in the cache, or wrong there."""
    missing = []
    for number, file in enumerate(files):
        if verifying:
            verifying(f"verifying: {number} of {counted(len(files), 'file')} done, next {file.name} ({sized(file.size)})")
        if not store.has(listing.commit, file, verify=verifying is not None):
            missing.append(file)
    return missing


def _said(left_out: list[File]) -> str:
    names = ", ".join(file.name for file in left_out[:NAMES_SHOWN]) + (", ..." if len(left_out) > NAMES_SHOWN else "")
    size = sized(sum(file.size for file in left_out))
    return f"left out, as engines do not need it: {counted(len(left_out), 'file')}, {size} ({names})"


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())
