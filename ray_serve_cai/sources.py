"""Where a model's files are: shipped with the image, at a path, or on the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ray_serve_cai.errors import HubError, ModelNotFoundError
from ray_serve_cai.state import ModelFiles

SHIPPED = Path("/opt/ray-serve-cai/models")
HUB = "https://huggingface.co"
HUB_TIMEOUT_S = 15
_FIX = "use a local path, an id of https://huggingface.co/models, or demo, which is in the images"


def resolve(source: str, shipped: Path = SHIPPED) -> str:
    """A path for what is on disk, else the id as it is.

    Raises:
        ModelNotFoundError: it looks like a path and nothing is there, or what is there is no model directory.
    """
    if not source.startswith(("/", ".", "~")):
        return str(shipped / source) if (shipped / source / "config.json").is_file() else source
    path = Path(source).expanduser()
    try:
        exists = path.exists()
        empty = path.is_dir() and not (path / "config.json").is_file() and not any(path.glob("*.gguf"))
    except OSError as error:
        raise ModelNotFoundError(f"model path {source!r} cannot be seen ({error.strerror}); give uid {os.getuid()} access.") from error
    if not exists:
        raise ModelNotFoundError(f"model path {source!r} does not exist on this node; mount it at the same path on every node.")
    if empty:
        raise ModelNotFoundError(f"model path {source!r} holds no config.json; give the directory of a Hugging Face model.")
    return str(path)


def is_cached(model_id: str, env: Mapping[str, str]) -> bool:
    """Whether the hub's cache has a snapshot of this id (layout: huggingface_hub's cache guide)."""
    return any(cache(env).glob(f"models--{model_id.replace('/', '--')}/snapshots/*/config.json"))


def cache(env: Mapping[str, str]) -> Path:
    """The hub's cache of snapshots."""
    return Path(env.get("HF_HUB_CACHE") or os.path.join(env.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"), "hub"))


def check(source: str, env: Mapping[str, str], shipped: Path = SHIPPED) -> None:
    """See that a model can be had before anything is started for it.

    Raises:
        ModelNotFoundError: no such path, or the hub does not know the id or does not show it without a token.
        HubError: the hub does not answer.
    """
    import httpx

    model = resolve(source, shipped)
    if model.startswith("/") or Path(model).exists() or is_cached(model, env):
        return
    hub = (env.get("HF_ENDPOINT") or HUB).rstrip("/")
    if env.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise ModelNotFoundError(f"model {source!r} is not in the cache and HF_HUB_OFFLINE is set; {_FIX}.")
    token = env.get("HF_TOKEN", "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.head(f"{hub}/{model}/resolve/main/config.json", headers=headers, timeout=HUB_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise HubError(
            f"model {source!r} is not on this node and the hub {hub} is not reachable ({error}); "
            "use a local path, or the model demo, which is in the images and needs no download."
        ) from error
    if answer.status_code in (401, 403):
        raise ModelNotFoundError(f"the hub refuses model {source!r} ({answer.status_code}); check the id, and set HF_TOKEN if it is gated.")
    if answer.status_code == 404:
        raise ModelNotFoundError(f"the hub {hub} has no model {source!r}; {_FIX}.")
    if answer.status_code >= 400:
        raise HubError(f"the hub {hub} answered {answer.status_code} for model {source!r}; try again later, or {_FIX}.")


def check_all(files: Iterable[ModelFiles], env: Mapping[str, str], *, engines: Collection[str], gpus: float) -> None:
    """See that this node can load its part of every model that it may be given one of, with these engines and so many GPUs.

    Raises:
        ModelNotFoundError, HubError: as `check`.
    """
    for source in dict.fromkeys(one.source for one in files if one.engine in engines and one.gpus <= gpus):
        check(source, env)
