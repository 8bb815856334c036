"""The command line against an emulated workspace on a socket: what it prints, its exit codes, and what a SIGKILL leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_serve_cai.cai.config import load
from ray_serve_cai.cai.requests import CLUSTER, SPEC
from tests.fakes.cai.platform import KEY, PROJECT, Nodes, Platform, Reply
from tests.fakes.cai.server import DOMAIN, Workspace
from tests.unit.cai.conftest import IMAGE

pytestmark = pytest.mark.issue(9)
MODEL_KEY = "sk-of-the-models-0123456789"


class Ready(Nodes):
    """Applications that run at once, and heads that say so."""

    platform: Platform

    def reply(self, application: dict[str, Any]) -> Reply:
        alive = sum(one["status"] == "APPLICATION_RUNNING" for one in self.platform.applications.values())
        told = {
            "status": "ok",
            "phase": "ready",
            "phase_detail": "every model answers",
            "models": [{"name": "demo"}],
            "nodes": {"alive": alive},
        }
        return Reply(200, told)


class Person:
    """Somebody with a shell."""

    def __init__(self, workspace: Workspace, file: Path) -> None:
        self.workspace = workspace
        self.platform = workspace.platform
        self.file = file
        variables = {"CML_HOST": f"http://{DOMAIN}", "CML_API_KEY": KEY, "CDSW_PROJECT_ID": PROJECT, "VLLM_API_KEY": MODEL_KEY}
        self.env = {**os.environ, **variables, "HTTP_PROXY": workspace.proxy, "http_proxy": workspace.proxy}

    def start(self, *words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "ray_serve_cai.cli", "cai", *words]
        return subprocess.Popen(line, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str, file: bool = True) -> tuple[int, str, str]:
        process = self.start(*words, *(("-f", str(self.file)) if file else ()))
        out, err = process.communicate(timeout=60)
        assert KEY not in out + err
        assert MODEL_KEY not in out + err
        return process.returncode, out, err


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    nodes = Ready()
    nodes.platform = Platform(nodes=nodes, runtimes=[{"image_identifier": IMAGE, "editor": "PBJ Workbench", "status": "ENABLED"}])
    file = tmp_path / "c.yaml"
    section = {"name": "m", "runtime": IMAGE, "authentication": "keys", "workers": {"cpu": {"count": 2}}}
    file.write_text(yaml.safe_dump({"cai": section, "models": [{"source": "demo"}]}))
    with Workspace(nodes.platform) as workspace:
        yield Person(workspace, file)


def test_from_plan_to_down(person: Person) -> None:
    code, out, _ = person.run("plan")
    assert (code, out.splitlines()[-1]) == (0, "5 to do")
    code, out, err = person.run("up", "--timeout", "30")
    assert code == 0, err
    assert "create m-head (4 CPU, 16 GB)" in err
    assert "ready: every model answers; 3 of 3 nodes" in out
    assert out.splitlines()[-1] == f"http://m.{DOMAIN}/v1 serves demo"
    assert person.run("plan")[1].splitlines()[-1] == "nothing to do"
    assert json.loads(person.run("plan", "--json")[1])["steps"][0]["action"] == "keep"
    code, out, _ = person.run("status", "--json")
    assert (code, json.loads(out)["head"]["status"]) == (0, "ok")
    code, out, err = person.run("scale", "cpu=3", "--timeout", "30")
    assert (code, "4 of 4 nodes" in out) == (0, True)
    assert "the file still says 2 for 'cpu'" in err
    assert person.run("down")[:2] == (0, "m: 4 applications deleted\n")
    assert person.platform.applications == {}
    assert person.run("down")[:2] == (0, "m: there was nothing\n")


def test_status_of_what_is_not_there(person: Person) -> None:
    code, _, err = person.run("status")
    assert code == 69
    assert "there is no cluster 'm' in the project; ray-serve-cai cai up -f" in err


@pytest.mark.parametrize(
    ("words", "said"), [(["cpu"], "'cpu' is no count"), (["cpu=-1"], "no count"), (["gpu=2"], "there is no group 'gpu'")]
)
def test_a_count_that_is_none(person: Person, words: list[str], said: str) -> None:
    code, _, err = person.run("scale", *words)
    assert code == 64
    assert said in err


@pytest.mark.parametrize("moment", [4, 5, 7, 8, 10])
def test_killed_and_run_again(person: Person, moment: int) -> None:
    """SIGKILL while a request is answered: its effect is there, and nobody got the answer."""
    process = person.start("up", "-f", str(person.file), "--timeout", "30")

    def kill(method: str, path: str) -> Reply | None:
        if len(person.platform.requests) == moment:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        return None

    person.platform.faults.append(kill)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    code, _, err = person.run("up", "--timeout", "30")
    assert code == 0, err
    there = sorted(one["name"] for one in person.platform.applications.values() if one["environment"].get(CLUSTER) == "m")
    assert there == sorted(load(person.file).cai.applications())
    assert len({one["environment"]["RSCAI_TOKEN"] for one in person.platform.applications.values()}) == 1
    assert all(one["environment"][SPEC] for one in person.platform.applications.values())
    files = sorted(path.partition(".")[2].rpartition(".")[2] for path in person.platform.files)
    assert files == ["py", "yaml"]
    assert person.run("plan")[1].splitlines()[-1] == "nothing to do"


def test_scaling_one_group_leaves_the_others(person: Person) -> None:
    section = yaml.safe_load(person.file.read_text())
    section["cai"]["workers"] = {"a": {"count": 1}, "b": {"count": 1}}
    person.file.write_text(yaml.safe_dump(section))
    assert person.run("up", "--timeout", "30")[0] == 0
    assert person.run("scale", "a=3", "--timeout", "30")[0] == 0
    code, _, err = person.run("scale", "b=2", "--timeout", "30")
    assert code == 0
    assert "delete" not in err
    assert len(person.platform.applications) == 6
    assert person.run("scale", "a=1", "a=2")[0] == 64


def test_nobody_reads_the_progress(person: Person) -> None:
    line = f"{sys.executable} -m ray_serve_cai.cli cai up -f {person.file} --timeout 30 2>&1 >/dev/null | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=person.env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert len(person.platform.applications) == 3


@pytest.mark.parametrize("key", [KEY + "\n\nx", "schlüssel", "two words"])
def test_a_key_that_is_none_is_not_printed(person: Person, key: str) -> None:
    person.env["CML_API_KEY"] = key
    process = person.start("plan", "-f", str(person.file))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 64
    assert key.split(maxsplit=1)[0] not in out + err
    assert "the API key has characters that no key has" in err


def test_a_key_with_a_line_end_is_that_key(person: Person) -> None:
    person.env["CML_API_KEY"] = KEY + "\n"
    assert person.run("plan")[0] == 0


def test_a_ca_bundle_that_is_none(person: Person, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    person.env["REQUESTS_CA_BUNDLE"] = str(tmp_path / "ca.pem")
    code, _, err = person.run("plan")
    assert code == 78
    assert "cannot be used" in err


def test_a_key_in_a_file(person: Person, tmp_path: Path) -> None:
    del person.env["CML_API_KEY"]
    code, _, err = person.run("plan")
    assert code == 64
    assert "api_key: set CML_API_KEY" in err
    (tmp_path / "key").write_text(KEY + "\n")
    person.env["CML_API_KEY_FILE"] = str(tmp_path / "key")
    assert person.run("plan")[0] == 0


def test_registering_a_runtime(person: Person) -> None:
    image = "registry.example.com/ray-serve-cai:new-cai"
    code, _, err = person.run("register-runtime", image, file=False)
    assert code == 77
    assert "Give an administrator the address" in err
    person.platform.administrator = True
    assert person.run("register-runtime", image, file=False)[:2] == (
        0,
        f"{image} is in the catalog now; in the file: cai.runtime: {image}\n",
    )
    assert "was in the catalog already" in person.run("register-runtime", image, file=False)[1]
    code, _, err = person.run("register-runtime", "elsewhere.example.com/x:y", file=False)
    assert code == 78
    assert "the image cannot be pulled" in err


def test_logs_outside_the_platform_say_where_to_look(person: Person) -> None:
    code, _, err = person.run("logs")
    assert code == 69
    assert "open the application's log in the workspace: m-head, m-cpu-1, m-cpu-2" in err
    assert person.run("logs", "gpu-1")[0] == 64


def test_doctor(person: Person) -> None:
    code, out, _ = person.run("doctor")
    assert code == 0
    assert out.splitlines()[-1] == "nothing seen keeps this cluster from coming up"
    person.platform.runtimes.clear()
    code, out, _ = person.run("doctor")
    assert code == 71
    assert out.splitlines()[-1] == "this cluster cannot come up: runtime"


def test_the_former_names(person: Person) -> None:
    def run(command: str) -> Any:
        line = [sys.executable, "-m", "ray_serve_cai.launch_cluster", "--json", "--config", str(person.file), command]
        done = subprocess.run(line, env=person.env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert run("start-cai")["head"]["status"] == "ok"
    assert len(run("status-cai")["applications"]) == 3
    assert run("stop-cai") == {"name": "m", "deleted": 3}


def test_an_interrupt_says_what_goes_on(person: Person) -> None:
    person.platform.nodes.reply = lambda _: Reply(502, "")  # type: ignore[method-assign]
    with person.start("up", "-f", str(person.file)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "answers 502" in line:
                break
        process.send_signal(signal.SIGINT)
        assert "the same command takes it from here" in process.stderr.read()
        assert process.wait(20) == 130
