"""A Cloudera AI runtime under the platform's conditions: its PID 1, its user, the project over /home/cdsw, a fresh /tmp."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.containers import ROOT, run, until
from tests.images.conftest import Inside, inspect

pytestmark = pytest.mark.issue(7)
TOKEN = "of-this-test-only"
CONDITIONS = ("--user", "8536:8536", "--tmpfs", "/tmp:mode=1777", "--shm-size", "64m", "--env", f"KG_AUTH_TOKEN={TOKEN}")
SHADOW = "mkdir -p ~/.local/lib/python3.11/site-packages && echo 'raise ImportError(\"shadow\")' > ~/.local/lib/python3.11/site-packages/ray.py"
GATEWAY = "exec $ML_RUNTIME_JUPYTER_KERNEL_GATEWAY_CMD --KernelGatewayApp.ip=0.0.0.0 --KernelGatewayApp.port=8888"


class Kernel:
    """A kernel behind the gateway, spoken to as the platform does: HTTP to start it, a web socket to run cells."""

    def __init__(self, gateway: str, socket: ClientConnection) -> None:
        self.gateway = gateway
        self._socket = socket

    def run(self, code: str) -> str:
        """What a cell prints.

        Raises:
            AssertionError: it raised.
        """
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": "test", "msg_type": "execute_request", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        self._socket.send(json.dumps(message))
        printed = ""
        while True:
            answer = json.loads(self._socket.recv(timeout=300))
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if answer["msg_type"] == "stream" and answer["content"]["name"] == "stdout":
                printed += answer["content"]["text"]
            if answer["msg_type"] == "error":
                raise AssertionError("\n".join(answer["content"]["traceback"]))
            if answer["msg_type"] == "execute_reply":
                return printed


@pytest.fixture
def kernel(cai_image: str) -> Iterator[Kernel]:
    """The gateway of an image as the platform starts it, and a kernel in it."""
    volume = run("docker", "volume", "create", "--label", "rscai-test").stdout.strip()
    start = ("--entrypoint", "/bin/sh", cai_image, "-c", f"{SHADOW} && {GATEWAY}")
    container = run("docker", "run", "--detach", "--label", "rscai-test", *CONDITIONS, "--volume", f"{volume}:/home/cdsw", *start).stdout.strip()
    try:
        (network,) = json.loads(run("docker", "inspect", container).stdout)[0]["NetworkSettings"]["Networks"].values()
        address = f"{network['IPAddress']}:8888"
        headers = {"Authorization": f"token {TOKEN}"}
        with httpx.Client(base_url=f"http://{address}", headers=headers, timeout=30, trust_env=False) as gateway:
            until("the gateway answers", lambda: gateway.get("/api").status_code == 200, 60)
            name = inspect(cai_image)["Config"]["Env"]
            made = gateway.post("/api/kernels", json={"name": dict(line.split("=", 1) for line in name)["ML_RUNTIME_JUPYTER_KERNEL_NAME"]})
            made.raise_for_status()
            channels = f"ws://{address}/api/kernels/{made.json()['id']}/channels"
            with connect(channels, additional_headers=headers, open_timeout=30, max_size=None) as socket:
                yield Kernel(address, socket)
    except BaseException:
        print(run("docker", "logs", container, check=False).stderr[-3000:])
        raise
    finally:
        run("docker", "rm", "--force", "--volumes", container)
        run("docker", "volume", "rm", volume)


def test_a_notebook_cell_and_the_launcher(kernel: Kernel, cai_image: str) -> None:
    assert httpx.get(f"http://{kernel.gateway}/api/kernels", trust_env=False).status_code in (401, 403)  # not without the token
    engine = inspect(cai_image)["Config"]["Labels"]["io.ray-serve-cai.engine"]
    code = f"import getpass, os, sys, ray, {engine}\nprint(ray.__version__, {engine}.__version__)\nprint(sys.executable, os.getcwd(), getpass.getuser())"
    versions, place = kernel.run(code).splitlines()[-2:]
    labels = inspect(cai_image)["Config"]["Labels"]
    assert versions.split()[0] == labels["io.ray-serve-cai.ray.version"]
    assert versions.split()[1].startswith(labels["io.ray-serve-cai.engine.version"])
    assert place == "/opt/ray-serve-cai/venv/bin/python3 /home/cdsw cdsw"
    # A script spawns the launcher as a child: https://docs.cloudera.com/machine-learning/cloud/applications/
    launch = "import json, subprocess\ndone = subprocess.run(['ray-serve-cai', 'plan', '--json'], capture_output=True, text=True)\nprint(done.stdout or done.stderr)"
    plan: dict[str, Any] = json.loads(kernel.run(launch))
    assert plan["role"] == "single"
    shadow = "import os\nprint(os.path.exists(os.path.expanduser('~/.local/lib/python3.11/site-packages/ray.py')), ray.__file__)"
    assert kernel.run(shadow).split() == ["True", "/opt/ray-serve-cai/venv/lib/python3.11/site-packages/ray/__init__.py"]
    assert kernel.run("!echo $((6 * 7))").strip() == "42"


def test_a_model_is_served_below_the_platforms_user(kernel: Kernel, cai_image: str) -> None:
    """The script of docs/cloudera-ai-runtime.md in a cell, with the engine where it runs on a CPU."""
    if "-cuda" in cai_image:
        pytest.skip("an engine for CUDA serves only where there is a GPU")
    page = (ROOT / "docs/cloudera-ai-runtime.md").read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert script.endswith("launcher.wait()\n")
    quiet = 'env=os.environ | node, stdout=open("/tmp/launcher.log", "w"), stderr=subprocess.STDOUT)'
    script = script.removesuffix("launcher.wait()\n").replace("env=os.environ | node)", quiet)
    kernel.run(f'import os\nos.environ["CDSW_APP_PORT"] = "8100"\n{script}')
    ask = (
        "import json, time, urllib.request\n"
        "body = json.dumps({'model': 'demo', 'temperature': 0, 'max_tokens': 32, 'messages': [{'role': 'user', 'content': 'What is ray-serve-cai?'}]})\n"
        "told = ''\n"
        "for _ in range(500):\n"
        "    try:\n"
        "        request = urllib.request.Request('http://127.0.0.1:8100/v1/chat/completions', body.encode(), {'Content-Type': 'application/json'})\n"
        "        told = json.load(urllib.request.urlopen(request, timeout=60))['choices'][0]['message']['content']\n"
        "        break\n"
        "    except OSError as error:\n"
        "        told = error\n"
        "        if launcher.poll() is not None: break\n"
        "        time.sleep(.5)\n"
        "print(told if isinstance(told, str) else f'{told!r} {open(\"/tmp/launcher.log\").read()[-3000:]}')"
    )
    said = kernel.run(ask)
    assert "images" in said, said
    assert kernel.run("launcher.terminate(); print(launcher.wait(60))").strip() == "0"


def test_what_the_platform_finds(cai_image: str) -> None:
    """https://docs.cloudera.com/machine-learning/cloud/runtimes/topics/ml-creating-customized-runtimes.html"""
    inside = Inside(cai_image)
    with contextlib.ExitStack() as stack:
        stack.callback(run, "docker", "rm", "--force", "--volumes", inside.id)
        assert inside("id").split()[:2] == ["uid=8536(cdsw)", "gid=8536(cdsw)"]
        assert inside("getent", "passwd", "cdsw").strip() == "cdsw:x:8536:8536::/home/cdsw:/bin/bash"
        assert inside("stat", "--format", "%a", "/etc", "/etc/alternatives").split() == ["777", "777"]
        others = inside("find", "/bin/", "/etc", "/opt", "/sbin/", "/usr", "-xdev", "-type", "d", "!", "-user", "cdsw", user="0")
        assert others == ""
        assert inside("find", "/home/cdsw", "/tmp", "-mindepth", "1", user="0") == ""
        assert inside("sh", "-c", "test -e /etc/krb5.conf || echo none") == "none\n"
        assert inside("readlink", "-f", "/etc/pki/tls/certs/ca-bundle.crt") == "/etc/ssl/certs/ca-certificates.crt\n"
        for python in ("/usr/local/bin/python3", "python", "python3"):
            assert inside(python, "-c", "import sys; print(sys.prefix)") == "/opt/ray-serve-cai/venv\n"
        for command in ("kinit", "ssh", "xz"):
            assert inside("sh", "-c", f"command -v {command}") != ""


def test_it_is_the_engine_image_and_more(cai_image: str) -> None:
    """All but the last layers of the engine image (its working directory, the bill, the package) are the same, digest for digest."""
    engine = inspect(cai_image.removesuffix("-cai"))["RootFS"]["Layers"]
    cai = inspect(cai_image)["RootFS"]["Layers"]
    assert cai[: len(engine) - 3] == engine[:-3]


def test_a_login_shell_finds_the_commands(cai_image: str, inside: Inside) -> None:
    """As a terminal of the platform may be one: /etc/profile sets a PATH of its own."""
    found = inside("bash", "-lc", "command -v python ray ray-serve-cai && python -c 'import ray, sys; print(sys.prefix)'", user="8536:8536").split()
    assert found == [*(f"/opt/ray-serve-cai/venv/bin/{name}" for name in ("python", "ray", "ray-serve-cai")), "/opt/ray-serve-cai/venv"]


def test_a_base_that_has_the_user_and_the_links_already(cai_image: str) -> None:
    """As Cloudera's own runtimes have: what made this image makes it once more, over a Python that is a link."""
    again = "ln -sf python3.11 /usr/local/bin/python3 && cp /usr/bin/python3.11 /usr/local/bin/python3.11 && bash /cai.sh && python3 -c 'import ray'"
    mount = ("--volume", f"{ROOT}/images/cai.sh:/cai.sh:ro")
    done = run("docker", "run", "--rm", "--network", "none", "--user", "root", *mount, "--entrypoint", "sh", cai_image, "-c", f"{again} && /usr/local/bin/python3.11 -V")
    assert done.stdout.startswith("Python 3.11.")
