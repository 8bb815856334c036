import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ray_serve_cai import sources
from ray_serve_cai.errors import ModelNotFoundError, UnavailableError
from ray_serve_cai.state import ModelFiles


def model_at(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").touch()
    return directory


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    model_at(tmp_path / "shipped" / "demo")
    return tmp_path / "shipped"


@pytest.fixture
def private() -> Iterator[Path]:
    """A directory into which only root looks; not in ``tmp_path``, into whose parents only its owner looks."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        model_at(directory / "model")
        directory.chmod(0)
        yield directory
        directory.chmod(0o700)


@dataclass
class Hub:
    """A hub on loopback that gives every request one status."""

    url: str
    status: int = 200
    seen: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            made.seen.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def env(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}


def test_a_shipped_model_is_known_by_name(shipped: Path) -> None:
    assert sources.resolve("demo", shipped) == str(shipped / "demo")


@pytest.mark.parametrize("source", ["Qwen/Qwen3-0.6B", "gpt2", "demo2"])
def test_an_id_stays_as_it_is(shipped: Path, source: str) -> None:
    assert sources.resolve(source, shipped) == source


def test_a_path(tmp_path: Path, shipped: Path) -> None:
    model = model_at(tmp_path / "mine")
    assert sources.resolve(str(model), shipped) == str(model)


def test_a_path_below_home(tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_at(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.resolve("~/mine", shipped) == str(model)


def test_a_relative_path(tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_at(tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    assert Path(sources.resolve("./demo", shipped)).resolve() == tmp_path / "demo"


@pytest.mark.parametrize("name", ["model.gguf", "config.json"])
def test_a_directory_with_a_model(tmp_path: Path, shipped: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert sources.resolve(str(tmp_path), shipped) == str(tmp_path)


def test_a_file_is_a_model(tmp_path: Path, shipped: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    assert sources.resolve(str(file), shipped) == str(file)


def test_a_path_that_is_not_there(tmp_path: Path, shipped: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"/nowhere' does not exist on this node; mount it"):
        sources.resolve(str(tmp_path / "nowhere"), shipped)


def test_a_directory_without_a_model(tmp_path: Path, shipped: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json; give the directory"):
        sources.resolve(str(tmp_path), shipped)


@pytest.mark.parametrize("below", ["model", "."])
def test_a_path_that_this_user_may_not_see(private: Path, shipped: Path, without_rights: None, below: str) -> None:
    with pytest.raises(ModelNotFoundError, match=private.name):
        sources.resolve(str(private / below), shipped)


@pytest.mark.parametrize(
    ("variables", "cache"),
    [({"HF_HUB_CACHE": "{tmp}/cache"}, "cache"), ({"HF_HOME": "{tmp}/home"}, "home/hub"), ({}, ".cache/huggingface/hub")],
)
def test_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cache: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    env = {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    assert not sources.is_cached("org/model", env)
    model_at(tmp_path / cache / "models--org--model" / "snapshots" / "1234")
    assert sources.is_cached("org/model", env)
    assert not sources.is_cached("org/mode", env)


def test_what_is_on_disk_asks_no_hub(tmp_path: Path, shipped: Path, hub: Hub, env: dict[str, str]) -> None:
    sources.check("demo", env, shipped)
    sources.check(str(model_at(tmp_path / "mine")), env, shipped)
    model_at(tmp_path / "hf/hub/models--org--model/snapshots/1")
    sources.check("org/model", env, shipped)
    assert hub.seen == []


def test_a_model_of_the_hub(shipped: Path, hub: Hub, env: dict[str, str]) -> None:
    sources.check("org/model", env, shipped)
    sources.check("org/model", env | {"HF_TOKEN": "hf_secret"}, shipped)
    path = "/org/model/resolve/main/config.json"
    assert hub.seen == [(path, ""), (path, "Bearer hf_secret")]


@pytest.mark.parametrize(
    ("status", "error", "parts"),
    [
        (401, ModelNotFoundError, ["'org/model'", "401", "HF_TOKEN"]),
        (403, ModelNotFoundError, ["'org/model'", "403", "HF_TOKEN"]),
        (404, ModelNotFoundError, ["has no model 'org/model'", "demo, which is in the images", "local path"]),
        (503, UnavailableError, ["answered 503", "'org/model'", "try again later", "demo, which is in the images"]),
    ],
)
def test_what_the_hub_refuses(shipped: Path, hub: Hub, env: dict[str, str], status: int, error: type[Exception], parts: list[str]) -> None:
    hub.status = status
    with pytest.raises(error) as caught:
        sources.check("org/model", env, shipped)
    for part in parts:
        assert part in str(caught.value)


def test_a_hub_out_of_reach(shipped: Path, env: dict[str, str], free_port: int) -> None:
    env["HF_ENDPOINT"] = f"http://127.0.0.1:{free_port}/"
    with pytest.raises(UnavailableError) as caught:
        sources.check("org/model", env, shipped)
    for part in ("'org/model'", f"http://127.0.0.1:{free_port} is not reachable", "the model demo, which is in the images", "local path"):
        assert part in str(caught.value)


@pytest.mark.parametrize("url", ["http://hub:port", "http://xn--/"])
def test_a_hub_address_that_is_none(shipped: Path, env: dict[str, str], url: str) -> None:
    with pytest.raises(UnavailableError, match="not reachable"):
        sources.check("org/model", env | {"HF_ENDPOINT": url}, shipped)


def test_a_token_with_a_line_end_is_used_without_it(shipped: Path, hub: Hub, env: dict[str, str]) -> None:
    sources.check("org/model", env | {"HF_TOKEN": "hf_secret\n"}, shipped)
    assert hub.seen[0][1] == "Bearer hf_secret"


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline(shipped: Path, hub: Hub, env: dict[str, str], value: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'org/model' is not in the cache and HF_HUB_OFFLINE is set; use a local path") as caught:
        sources.check("org/model", env | {"HF_HUB_OFFLINE": value}, shipped)
    assert str(caught.value).endswith("or download it where the hub is reachable: ray-serve-cai fetch org/model.")
    assert hub.seen == []


def test_only_what_may_be_placed_on_a_node_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    files = [
        ModelFiles("a", str(tmp_path), "vllm"),
        ModelFiles("b", "/nowhere", "sglang"),
        ModelFiles("c", "/large", "vllm", gpus=8),
    ]
    sources.check_all(files, {}, engines=["vllm"], gpus=4)
    with pytest.raises(ModelNotFoundError, match="'/nowhere' does not exist on this node; mount it"):
        sources.check_all(files, {}, engines=["vllm", "sglang"], gpus=4)
    with pytest.raises(ModelNotFoundError, match="'/large'"):
        sources.check_all(files, {}, engines=["vllm"], gpus=8)
def snapshot(tmp_path: Path, *names: str, index: object = None, commit: str = "c1") -> Path:
    """A snapshot of links to blobs, as the hub's own library makes it; an index names the weights of a model."""
    made = tmp_path / "hf/hub/models--org--model/snapshots" / commit
    blobs = made.parent.parent / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    for name in names:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        blob = blobs / f"blob-of-{name.translate(str.maketrans('/.', '__'))}"
        blob.write_text(json.dumps(index) if name.endswith("index.json") else "{}")
        (made / name).symlink_to(blob)
    return made


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
MAP = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
INDEX = "model.safetensors.index.json"


@pytest.mark.issue(6)
@pytest.mark.parametrize(
    ("names", "index", "complete"),
    [
        pytest.param(["config.json", "model.safetensors"], None, True, id="one file"),
        pytest.param(["config.json", "consolidated.safetensors"], None, True, id="one file of another name"),
        pytest.param(["config.json", "pytorch_model.bin"], None, True, id="pickled"),
        pytest.param(["config.json"], None, False, id="no weights"),
        pytest.param(["config.json", "training_args.bin", "onnx/model.safetensors"], None, False, id="nothing that is weights"),
        pytest.param(["model.safetensors"], None, False, id="no config.json"),
        pytest.param(["config.json", INDEX, *SHARDS], MAP, True, id="all shards"),
        pytest.param(["config.json", INDEX, SHARDS[0]], MAP, False, id="a shard that is not there"),
        pytest.param(["config.json", INDEX], MAP, False, id="no shard"),
        pytest.param(["config.json", *SHARDS], None, True, id="all shards, before their index"),
        pytest.param(["config.json", SHARDS[1]], None, False, id="a shard, before the index"),
        pytest.param(["config.json", INDEX, *SHARDS], "half of it", False, id="an index that is none"),
        pytest.param(["config.json", INDEX, *SHARDS], {"weight_map": []}, False, id="an index of something else"),
        pytest.param(["config.json", "pytorch_model.bin.index.json", SHARDS[0]], MAP, False, id="a shard less than a pickled index names"),
    ],
)
def test_a_snapshot_is_complete(tmp_path: Path, env: dict[str, str], names: list[str], index: object, complete: bool) -> None:
    made = snapshot(tmp_path, *names, index=index)
    assert sources.is_complete(made) == complete
    assert sources.is_cached("org/model", env) == complete


@pytest.mark.issue(6)
def test_a_file_on_its_way_is_not_there(tmp_path: Path) -> None:
    made = snapshot(tmp_path, "config.json", "model.safetensors", "tokenizer.json")
    blobs = made.parent.parent / "blobs"
    (blobs / "of-another-commit.incomplete").touch()
    assert sources.is_complete(made)
    coming = blobs / "blob-of-tokenizer_json.1a2b3c4d.incomplete"  # huggingface_hub's names have a random part
    coming.touch()
    assert not sources.is_complete(made)
    coming.unlink()
    assert sources.is_complete(made)
    (blobs / "blob-of-tokenizer_json").unlink()
    assert not sources.is_complete(made)


@pytest.mark.issue(6)
def test_what_main_points_to_decides(tmp_path: Path, env: dict[str, str], hub: Hub) -> None:
    """An engine loads main: an older commit that is complete does not help it."""
    old = snapshot(tmp_path, "config.json", "model.safetensors", commit="old")
    assert sources.cached("org/model", env) == old
    refs = old.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("new")
    assert not sources.is_cached("org/model", env)
    snapshot(tmp_path, "config.json", INDEX, SHARDS[0], index=MAP, commit="new")
    assert not sources.is_cached("org/model", env)
    assert sources.cached("org/model", env, "old") == old
    sources.check("org/model", env)
    assert len(hub.seen) == 1
    (refs / "main").write_text("old\n")
    assert sources.cached("org/model", env) == old
    assert sources.cached("org/model", env, "v1") is None
