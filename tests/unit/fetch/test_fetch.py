"""Downloading from a hub on loopback that breaks off, lies and refuses."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ray_serve_cai import cli, sources
from ray_serve_cai.errors import ConfigError, ModelNotFoundError, RayServeCaiError, ResourceError, UnavailableError, UsageError
from ray_serve_cai.fetch import command, store
from ray_serve_cai.fetch.command import Fetched
from tests.containers import until
from tests.hub import FakeHub, Fault
from tests.unit.fetch.conftest import LEFT_OUT, MIB, sharded

pytestmark = pytest.mark.issue(6)
SHARD = "model-00002-of-00003.safetensors"
SIZE = MIB + 2
TOKEN = "hf_plantedtoken0123456789"
Fetch = Callable[..., Fetched]


@pytest.fixture
def lines() -> list[str]:
    """What was said."""
    return []


@pytest.fixture
def fetch(env: dict[str, str], lines: list[str]) -> Fetch:
    """Fetch one model in this process."""

    def fetched(model: str = "org/sharded", revision: str = "main", verify: bool = False, **more: str) -> Fetched:
        return command.fetch(model, env | more, revision=revision, verify=verify, say=lines.append)

    return fetched


def blob(env: dict[str, str], name: str = SHARD, model: str = "org/sharded") -> Path:
    return sources.repository(model, env) / "blobs" / hashlib.sha256(sharded()[name]).hexdigest()


def half(env: dict[str, str], name: str = SHARD) -> Path:
    return blob(env, name).with_suffix(".incomplete")


class Offline(NamedTuple):
    """What the hub's own library finds without a hub."""

    code: int
    text: str


def offline(env: dict[str, str], model: str) -> Offline:
    script = f"import huggingface_hub; print(huggingface_hub.snapshot_download({model!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    return Offline(done.returncode, done.stdout.strip() or done.stderr)


def test_a_model(hub: FakeHub, fetch: Fetch, env: dict[str, str], lines: list[str]) -> None:
    assert not sources.is_cached("org/sharded", env)
    fetched = fetch()
    commit = hub.repositories["org/sharded"].commit
    path = Path(fetched.path)
    wanted = {name: content for name, content in sharded().items() if name not in LEFT_OUT}
    assert {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()} == wanted
    size = sum(len(content) for content in wanted.values())
    assert fetched == Fetched("org/sharded", commit, str(sources.repository("org/sharded", env) / "snapshots" / commit), size, size)
    assert lines[0] == f"org/sharded at {commit[:12]}: 8 files, 3 MiB to come from {hub.url}"
    assert lines[1].startswith("left out, as engines do not need it: 5 files, 41 bytes (pytorch_model.bin, original/consolidated.00.pth, ")
    assert lines[2].startswith("downloading: ")
    assert lines[-1] == "verifying: 8 of 8 files right"
    assert sources.is_cached("org/sharded", env)


def test_without_the_hub_afterwards(hub: FakeHub, fetch: Fetch, env: dict[str, str]) -> None:
    fetched = [fetch(model) for model in ("org/demo", "org/sharded")]
    hub.stop()
    for one in fetched:
        sources.check(one.model, env | {"HF_HUB_OFFLINE": "1"})
        assert offline(env, one.model) == (0, one.path)
        assert fetch(one.model, HF_HUB_OFFLINE="1").path == one.path


def test_once_more(hub: FakeHub, fetch: Fetch, lines: list[str]) -> None:
    first = fetch()
    lines.clear()
    sent = dict(hub.sent)
    again = fetch()
    assert again == Fetched(first.model, first.revision, first.path, first.bytes)
    assert (hub.sent, lines) == (sent, [])


def test_a_commit(hub: FakeHub, fetch: Fetch, env: dict[str, str]) -> None:
    commit = hub.repositories["org/demo"].commit
    fetched = fetch("org/demo", revision=commit)
    assert Path(fetched.path).name == fetched.revision == commit
    assert not (sources.repository("org/demo", env) / "refs").exists()
    assert fetch("org/demo", revision=commit, HF_HUB_OFFLINE="1") == Fetched("org/demo", commit, fetched.path, fetched.bytes)


def test_a_connection_that_ends(hub: FakeHub, fetch: Fetch, env: dict[str, str]) -> None:
    """Within one call: it goes on from there."""
    hub.faults[SHARD] = Fault(after=500_000, times=2)
    assert fetch().bytes > 3 * MIB
    assert hub.ranges(SHARD) == [f"bytes={start}-{SIZE - 1}" for start in (0, 500_000, 1_000_000)]
    assert hub.sent[SHARD] == SIZE


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_busy_for_a_moment(hub: FakeHub, fetch: Fetch, status: int) -> None:
    hub.faults[SHARD] = Fault(status=status, times=3)
    fetch()
    assert len(hub.ranges(SHARD)) == 4


def test_a_hub_that_is_busy_for_long(hub: FakeHub, fetch: Fetch) -> None:
    hub.faults[SHARD] = Fault(status=503, times=100)
    with pytest.raises(UnavailableError, match=rf"broke off at .* \({SHARD}: it answered 503\); what is there stays"):
        fetch()


def test_an_interrupted_download_is_resumed_by_the_next_call(hub: FakeHub, fetch: Fetch, env: dict[str, str], lines: list[str]) -> None:
    hub.faults[SHARD] = Fault(after=500_000, times=1)
    hub.faults["model.safetensors.index.json"] = Fault(times=100)
    with pytest.raises(UnavailableError) as caught:
        fetch()
    for part in ("the download of model 'org/sharded'", "broke off at", "of 3 MiB", "what is there stays: run the command again"):
        assert part in str(caught.value)
    assert not sources.is_cached("org/sharded", env)
    assert not (sources.repository("org/sharded", env) / "snapshots").exists()
    hub.faults.clear()
    fetch()
    assert sum(hub.sent[name] for name in hub.sent) == sum(len(sharded()[name]) for name in hub.sent)


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_process_that_dies(hub: FakeHub, fetch: Fetch, env: dict[str, str], with_signal: signal.Signals) -> None:
    """Its lock is free, what it got stays, and the next one asks for the rest alone."""
    hub.faults[SHARD] = Fault(after=500_000, until=threading.Event())
    running = process("org/sharded", env)
    until("half a file", lambda: half(env).exists() and half(env).stat().st_size >= 400_000, 60, 0.02)
    running.send_signal(with_signal)
    _, err = running.communicate(timeout=60)
    hub.faults[SHARD].until.set()  # type: ignore[union-attr]  # not before: the rest would arrive first where the machine is busy
    assert running.returncode == (130 if with_signal == signal.SIGINT else -with_signal)
    assert ("interrupted: what is there stays; run the command again" in err) == (with_signal == signal.SIGINT)
    arrived = half(env).stat().st_size
    assert 400_000 <= arrived < SIZE
    hub.seen.clear()
    fetch()
    assert hub.ranges(SHARD) == [f"bytes={arrived}-{SIZE - 1}"]


def process(model: str, env: dict[str, str], *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "ray_serve_cai.cli", "fetch", model, *options],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_at_once(hub: FakeHub, fetch: Fetch, env: dict[str, str], lines: list[str]) -> None:
    """One downloads, the other one says whom it waits for, and finds it done."""
    hub.faults[SHARD] = Fault(after=500_000, until=threading.Event())
    first = process("org/sharded", env, "--json")
    until("half a file", lambda: half(env).exists() and half(env).stat().st_size >= 400_000, 60, 0.02)
    results: list[Fetched] = []
    second = threading.Thread(target=lambda: results.append(fetch()))
    second.start()
    until("it says that it waits", lambda: lines, 60, 0.02)
    assert lines[0].startswith(f"waiting for process {first.pid} on {os.uname().nodename}, which fetches the same model: downloading: ")
    assert lines[0].endswith(" (0 s)")
    hub.faults[SHARD].until.set()  # type: ignore[union-attr]
    out, err = first.communicate(timeout=60)
    second.join(60)
    assert first.returncode == 0, err
    said = json.loads(out)
    assert said.pop("seconds") > 0
    assert said == {
        "model": "org/sharded",
        "revision": hub.repositories["org/sharded"].commit,
        "path": results[0].path,
        "bytes": results[0].bytes,
        "downloaded_bytes": results[0].bytes,
    }
    assert results[0].downloaded_bytes == 0
    assert len(hub.ranges(SHARD)) == 1
    assert hub.sent[SHARD] == SIZE


def test_wrong_bytes_are_fetched_once_more(hub: FakeHub, fetch: Fetch) -> None:
    hub.faults[SHARD] = Fault(wrong=True)
    hub.faults["config.json"] = Fault(wrong=True)
    fetched = fetch()
    assert (Path(fetched.path) / SHARD).read_bytes() == sharded()[SHARD]
    assert (Path(fetched.path) / "config.json").read_bytes() == sharded()["config.json"]
    assert len(hub.ranges(SHARD)) == 2


def test_wrong_bytes_twice(hub: FakeHub, fetch: Fetch, env: dict[str, str]) -> None:
    hub.faults[SHARD] = Fault(wrong=True, times=2)
    with pytest.raises(UnavailableError, match=rf"{SHARD} of model 'org/sharded' came twice with another content than the hub .* says"):
        fetch()
    assert not half(env).exists()
    assert not sources.is_cached("org/sharded", env)


def test_a_hub_that_sends_only_whole_files(hub: FakeHub, fetch: Fetch) -> None:
    hub.ignores_ranges = True
    hub.faults[SHARD] = Fault(after=500_000)
    fetched = fetch()
    assert (Path(fetched.path) / SHARD).read_bytes() == sharded()[SHARD]


def test_more_than_there_should_be(hub: FakeHub, fetch: Fetch, env: dict[str, str]) -> None:
    """Left by something else: deleted, and fetched."""
    half(env).parent.mkdir(parents=True)
    half(env).write_bytes(bytes(SIZE + 1))
    assert (Path(fetch().path) / SHARD).read_bytes() == sharded()[SHARD]


def damage(fetched: Fetched) -> Path:
    """Other bytes of the same number."""
    file = Path(fetched.path) / SHARD
    file.resolve().write_bytes(bytes(SIZE))
    return file


def test_what_is_there_is_looked_at_by_size(hub: FakeHub, fetch: Fetch) -> None:
    file = damage(fetch())
    fetch()
    assert file.read_bytes() == bytes(SIZE)
    file.resolve().write_bytes(b"short")
    fetch()
    assert file.read_bytes() == sharded()[SHARD]


def test_what_is_there_is_hashed_on_demand(hub: FakeHub, fetch: Fetch, env: dict[str, str], lines: list[str]) -> None:
    file = damage(fetch())
    lines.clear()
    fetched = fetch(verify=True)
    assert file.read_bytes() == sharded()[SHARD]
    assert fetched.downloaded_bytes == SIZE
    assert lines[0] == "verifying: 0 of 8 files done, next config.json (23 bytes)"
    assert sources.is_cached("org/sharded", env)


def test_a_file_system_without_links(hub: FakeHub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("no links")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = Path(fetch().path)
    assert (path / SHARD).read_bytes() == sharded()[SHARD]
    assert not (path / SHARD).is_symlink()
    assert fetch().downloaded_bytes == 0


def test_a_disk_that_is_too_small(hub: FakeHub, fetch: Fetch, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10 * MIB, 8 * MIB, 2 * MIB))  # type: ignore[attr-defined]
    with pytest.raises(ResourceError) as caught:
        fetch()
    for part in ("model 'org/sharded' needs 3 MiB more", f"cache {sources.cache(env)}, which has 2 MiB free", "HF_HOME"):
        assert part in str(caught.value)
    assert hub.sent == {}


def test_a_disk_that_fills_up(fetch: Fetch, env: dict[str, str]) -> None:
    half(env).parent.mkdir(parents=True)
    half(env).symlink_to("/dev/full")
    with pytest.raises(
        ResourceError, match="the disk of the model cache is full after .* of 3 MiB of model 'org/sharded'; make room and run"
    ):
        fetch()


def test_a_disk_that_cannot_be_written(fetch: Fetch, env: dict[str, str]) -> None:
    half(env).mkdir(parents=True)
    with pytest.raises(ResourceError, match="the model cache cannot be written: .*Is a directory"):
        fetch()


def test_a_cache_that_is_somebody_elses(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"the model cache .*file/hub cannot be written to by uid \d+ \(Not a directory\); mount"):
        fetch(HF_HOME=str(tmp_path / "file"))


def test_no_disk_is_touched_for_an_unknown_id(fetch: Fetch, env: dict[str, str]) -> None:
    with pytest.raises(ModelNotFoundError, match="has no model 'org/nothing'"):
        fetch("org/nothing")
    assert not sources.cache(env).exists()


@pytest.mark.parametrize(
    ("status", "error", "parts"),
    [
        (401, ModelNotFoundError, ["refuses model 'org/sharded' (401)", "HF_TOKEN"]),
        (403, ModelNotFoundError, ["refuses model 'org/sharded' (403)", "HF_TOKEN"]),
        (404, ModelNotFoundError, ["has no model 'org/sharded'"]),
        (500, UnavailableError, ["answered 500", "try again later"]),
    ],
)
def test_what_the_hub_refuses(hub: FakeHub, fetch: Fetch, status: int, error: type[RayServeCaiError], parts: list[str]) -> None:
    """The words are those of the head's own check."""
    hub.repositories["org/sharded"].status = status
    with pytest.raises(error) as caught:
        fetch()
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_gated_model(hub: FakeHub, fetch: Fetch) -> None:
    """Everybody may see its files, and download none."""
    hub.repositories["org/sharded"].token = TOKEN
    with pytest.raises(ModelNotFoundError, match=r"refuses model 'org/sharded' \(401\)"):
        fetch()
    fetch(HF_TOKEN=f"{TOKEN}\n")
    assert {one.authorization for one in hub.seen[-8:] if not one.path.startswith("/content")} == {f"Bearer {TOKEN}"}


def test_an_unknown_revision(fetch: Fetch) -> None:
    with pytest.raises(ModelNotFoundError, match="model 'org/sharded' has no revision 'v9' at http://"):
        fetch(revision="v9")


def test_an_id_that_is_none(fetch: Fetch) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'a/b/c' is no id of the hub"):
        fetch("a/b/c")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://hub:port", "hub"])
def test_a_hub_out_of_reach(fetch: Fetch, url: str) -> None:
    with pytest.raises(UnavailableError, match=f"the hub {url} is not reachable"):
        fetch(HF_ENDPOINT=url)


def test_a_hub_out_of_reach_for_what_is_there(hub: FakeHub, fetch: Fetch, lines: list[str]) -> None:
    first = fetch()
    hub.stop()
    lines.clear()
    assert fetch() == Fetched(first.model, first.revision, first.path, first.bytes)
    assert lines[0].startswith("the cache has all of it, as it was when it was fetched: ")
    with pytest.raises(UnavailableError):
        fetch(verify=True)


def test_offline(fetch: Fetch) -> None:
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set, so that model 'org/sharded' cannot be fetched"):
        fetch(HF_HUB_OFFLINE="1")


def test_empty_variables_are_none(fetch: Fetch) -> None:
    """As Compose passes what nobody has set."""
    assert fetch("org/demo", HF_HUB_OFFLINE="", HF_TOKEN="", HF_HUB_CACHE="").bytes > MIB


@pytest.mark.parametrize(
    "files", [{"model.safetensors": b"1"}, {"config.json": b"{}"}, {"config.json": b"{}", "model.gguf": b"1"}], ids=str
)
def test_what_is_no_model_for_an_engine(hub: FakeHub, fetch: Fetch, files: dict[str, bytes]) -> None:
    hub.add("org/other", files)
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json|lacks weights"):
        fetch("org/other")


def test_a_hub_that_says_no_hashes(hub: FakeHub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(hub.repositories["org/demo"]), "sibling", lambda _, name: {"rfilename": name})
    with pytest.raises(UnavailableError, match="does not say sizes and hashes of the files of model 'org/demo'"):
        fetch("org/demo")


def test_a_hub_that_writes_elsewhere(hub: FakeHub, fetch: Fetch, tmp_path: Path) -> None:
    hub.add("org/evil", {"config.json": b"{}", "../../../../evil.json": b"{}"})
    with pytest.raises(UnavailableError, match=r"has a file '\.\./\.\./\.\./\.\./evil\.json' for model 'org/evil'"):
        fetch("org/evil")


def test_without_the_hubs_library(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"fetch needs huggingface_hub, .*pip install 'ray-serve-cai\[hub\]'"):
        fetch()


def test_what_needs_no_fetching(fetch: Fetch, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert fetch(str(tmp_path)) == Fetched(str(tmp_path), None, str(tmp_path), 2)
    assert cli.main(["fetch", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: nothing is to be fetched\n"
    assert cli.main(["fetch", str(tmp_path / "nowhere")]) == 66
    assert hub.seen == []


def test_the_command(hub: FakeHub, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["fetch", "org/demo"]) == 0
    out, err = capsys.readouterr()
    path = sources.cached("org/demo", env)
    assert out == f"{path}: use it with HF_HUB_OFFLINE=1\n"
    assert err.splitlines()[-1] == "verifying: 5 of 5 files right"
    assert cli.main(["fetch", "org/nothing"]) == 66
    assert cli.main(["fetch", "org/demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(path)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


@pytest.mark.parametrize("fault", ["none", "refused", "broken", "unreachable"])
@pytest.mark.parametrize("traceback", ["0", "1"])
def test_the_token_is_never_printed(hub: FakeHub, env: dict[str, str], secret: Path, fault: str, traceback: str) -> None:
    hub.repositories["org/demo"].token = TOKEN if fault != "refused" else "hf_another"
    if fault == "broken":
        hub.faults["model.safetensors"] = Fault(times=1)
        hub.faults["config.json"] = Fault(wrong=True, times=2)
    if fault == "unreachable":
        hub.stop()
    running = process("org/demo", env | {"HF_TOKEN_FILE": str(secret), "RSCAI_TRACEBACK": traceback})
    out, err = running.communicate(timeout=60)
    assert (running.returncode == 0) == (fault == "none")
    assert TOKEN not in out + err
    assert fault == "unreachable" or f"Bearer {TOKEN}" in {one.authorization for one in hub.seen}


@pytest.mark.parametrize("token", [f"{TOKEN}\nX-Other: 1", f"{TOKEN} x", f"{TOKEN}\u2019"], ids=["line end", "blank", "quote"])
@pytest.mark.parametrize("look", [sources.check, lambda model, env: command.fetch(model, env, revision="main", verify=False, say=print)])
def test_a_token_that_is_none(env: dict[str, str], token: str, look: Callable[[str, dict[str, str]], Any]) -> None:
    with pytest.raises(UsageError, match="HF_TOKEN holds a blank") as caught:
        look("org/demo", env | {"HF_TOKEN": token})
    assert TOKEN not in str(caught.value)
