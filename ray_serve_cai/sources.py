"""Where a model's files are: shipped with the image, at a path, or on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ray_serve_cai.errors import HubError, ModelNotFoundError, RayServeCaiError, UsageError
from ray_serve_cai.state import ModelFiles

SHIPPED = Path("/opt/ray-serve-cai/models")
HUB = "https://huggingface.co"
HUB_TIMEOUT_S = 15
MAIN = "main"
_FIX = "use a local path, an id of https://huggingface.co/models, or demo, which is in the images"
_WEIGHTS = re.compile(r"[^/]*\.(safetensors|pt|gguf)|pytorch_model[^/]*\.bin")
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\..+)")


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
    """Whether the hub's cache has all of this model."""
    return cached(model_id, env) is not None


def cached(model_id: str, env: Mapping[str, str], revision: str = MAIN) -> Path | None:
    """The complete snapshot of a branch, tag or commit.

    For ``main`` it is what ``main`` points to, because that is what an engine loads; where nothing is called ``main``, any commit.
    """
    there = repository(model_id, env)
    ref, commits = there / "refs" / revision, (there / "snapshots").glob("*")
    wanted = ref.read_text().strip() if ref.is_file() else None if revision == MAIN else revision
    return next((commit for commit in commits if commit.name == (wanted or commit.name) and is_complete(commit)), None)


def is_complete(snapshot: Path) -> bool:
    """Whether a snapshot has its config.json, all the weights that it names, and nothing that is still on its way.

    Its files are links to blobs; a blob that is on its way has a name in ``.incomplete`` (layout: huggingface_hub's cache guide).
    """
    files = {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*") if not path.is_dir()}
    if "config.json" not in files or not all(path.exists() for path in files.values()):
        return False
    coming = {path.name.partition(".")[0] for path in (snapshot.parent.parent / "blobs").glob("*.incomplete")}
    if coming and coming & {path.resolve().name for path in files.values()}:
        return False
    indexes = [name for name in files if name.endswith(".safetensors.index.json")] or [n for n in files if n.endswith(".bin.index.json")]
    if indexes:
        return any(_named(files[name]) <= files.keys() for name in indexes)
    weights = [name for name in files if _WEIGHTS.fullmatch(name)]
    return bool(weights) and {shard for name in weights for shard in _siblings(name)} <= files.keys()


def _named(index: Path) -> set[str]:
    """The files that an index of weights names; one that cannot be read names what is nowhere."""
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return {""}


def _siblings(name: str) -> list[str]:
    """A file of weights, or all shards of the set that its name says it is one of."""
    found = _SHARD.fullmatch(name)
    return [f"{found[1]}-{number:05}-of-{found[2]}{found[3]}" for number in range(1, int(found[2]) + 1)] if found else [name]


def repository(model_id: str, env: Mapping[str, str]) -> Path:
    """Where the hub's cache keeps this model's blobs, snapshots and refs."""
    return cache(env) / f"models--{model_id.replace('/', '--')}"


def cache(env: Mapping[str, str]) -> Path:
    """The hub's cache of snapshots."""
    return Path(env.get("HF_HUB_CACHE") or os.path.join(env.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"), "hub"))


def hub(env: Mapping[str, str]) -> str:
    """The hub's URL, without a slash at its end."""
    return (env.get("HF_ENDPOINT") or HUB).rstrip("/")


def token(env: Mapping[str, str]) -> str | None:
    """What the hub is to know us by.

    Raises:
        UsageError: it cannot stand in a header; the error does not show it, as an HTTP library's would.
    """
    given = env.get("HF_TOKEN", "").strip()
    if given and not re.fullmatch("[!-~]+", given):
        raise UsageError("HF_TOKEN holds a blank, a line end or a letter outside of ASCII; set it to the token alone.")
    return given or None


def is_offline(env: Mapping[str, str]) -> bool:
    """Whether the hub is not to be asked."""
    return env.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def refusal(source: str, url: str, status: int) -> RayServeCaiError | None:
    """What an answer of the hub at this URL means for a model; None where it is given."""
    if status in (401, 403):
        return ModelNotFoundError(f"the hub refuses model {source!r} ({status}); check the id, and set HF_TOKEN if it is gated.")
    if status == 404:
        return ModelNotFoundError(f"the hub {url} has no model {source!r}; {_FIX}.")
    if status >= 400:
        return HubError(f"the hub {url} answered {status} for model {source!r}; try again later, or {_FIX}.")
    return None


def unreachable(source: str, url: str, error: Exception) -> HubError:
    """No answer of the hub at this URL."""
    return HubError(
        f"model {source!r} is not on this node and the hub {url} is not reachable ({error}); "
        "check network, DNS and proxy, or HF_ENDPOINT; or use a local path, or the model demo, which is in the images."
    )


def check(source: str, env: Mapping[str, str], shipped: Path = SHIPPED) -> None:
    """See that a model can be had before anything is started for it.

    Raises:
        ModelNotFoundError: no such path, or the hub does not know the id or does not show it without a token.
        HubError: the hub does not answer.
        UsageError: the token is none.
    """
    import httpx

    model = resolve(source, shipped)
    if model.startswith("/") or Path(model).exists() or is_cached(model, env):
        return
    if is_offline(env):
        raise ModelNotFoundError(
            f"model {source!r} is not in the cache and HF_HUB_OFFLINE is set; {_FIX}, "
            f"or download it where the hub is reachable: ray-serve-cai fetch {source}."
        )
    url = hub(env)
    known_by = token(env)
    headers = {"Authorization": f"Bearer {known_by}"} if known_by else {}
    try:
        answer = httpx.head(f"{url}/{model}/resolve/main/config.json", headers=headers, timeout=HUB_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise unreachable(source, url, error) from error
    refused = refusal(source, url, answer.status_code)
    if refused:
        raise refused


def check_all(files: Iterable[ModelFiles], env: Mapping[str, str], *, engines: Collection[str], gpus: float) -> None:
    """See that this node can load its part of every model that it may be given one of, with these engines and so many GPUs.

    Raises:
        ModelNotFoundError, HubError, UsageError: as `check`.
    """
    for source in dict.fromkeys(one.source for one in files if one.engine in engines and one.gpus <= gpus):
        check(source, env)
