"""Applications as containers of a runtime image, under the platform's conditions.

[doc] user 8536, the project over /home/cdsw, a fresh /tmp, 64 MB of shared memory unless raised, CDSW_* variables, an address of its own that is
another one after a restart, the script's text as cells of a kernel, RUNNING only when the polled path answers.
[assumed] A script that ends without an error leaves STOPPED, one that raises FAILED; a stop is a SIGKILL.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx

from tests.containers import ROOT, run
from tests.fakes.cai.platform import KEY, PROJECT, Nodes

UID = 8536
LABEL = "rscai-test"
DEFAULT_SHM_MB = 64
APP_PORT = 8100
FORWARD_PORT = 8999


class ProjectFiles(MutableMapping[str, bytes]):
    """The project's file system: a directory of this machine that the applications have over /home/cdsw."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        os.chown(directory, UID, UID)
        directory.chmod(0o775)

    def __getitem__(self, path: str) -> bytes:
        try:
            return (self.directory / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise KeyError(path) from None

    def __setitem__(self, path: str, content: bytes) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        for one in (file, *file.relative_to(self.directory).parents):
            os.chown(self.directory / one, UID, UID)

    def __delitem__(self, path: str) -> None:
        (self.directory / path).unlink()

    def __iter__(self) -> Iterator[str]:
        return (str(one.relative_to(self.directory)) for one in self.directory.rglob("*") if one.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Containers(Nodes):
    """Starts and stops the containers of applications.

    Args:
        files: the project's.
        domain: CDSW_DOMAIN.
        images: runtime identifier -> the image's name in Docker.
    """

    def __init__(self, files: ProjectFiles, domain: str, images: dict[str, str]) -> None:
        self._files = files
        self._domain = domain
        self._images = images
        self.shared_memory_mb = 0
        self.ids: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self._scratch = Path(tempfile.mkdtemp(prefix="rscai-pod-"))
        self._scratch.chmod(0o755)
        self.network = f"rscai-test-cai-{uuid.uuid4().hex[:8]}"
        subnet = _free_subnet(self.network)
        run(
            "docker", "network", "create", "--label", LABEL, "--subnet", subnet, self.network
        )  # Docker gives addresses to its own choice else
        hosts = ipaddress.ip_network(subnet).hosts()
        self._free = itertools.islice(hosts, 10, None)  # an address is never given twice

    def start(self, application: dict[str, Any]) -> None:
        """As the platform: a new pod, with a new address."""
        name, address = application["id"], str(next(self._free))
        script = application["script"].removeprefix("/home/cdsw/")
        if script not in self._files:
            application["status"] = "APPLICATION_FAILED"
            return
        copy = self._scratch / f"{name}.py"
        copy.write_bytes(self._files[script])
        copy.chmod(0o644)
        variables = {**application["environment"], **self._variables(application, address)}
        secret = self._scratch / f"{name}.env"
        secret.touch(mode=0o600)
        secret.write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
        self.ids[name] = run(
            *("docker", "run", "--detach", "--label", LABEL, "--network", self.network, "--ip", address, "--user", f"{UID}:{UID}"),
            *("--tmpfs", "/tmp:mode=1777,exec", "--shm-size", f"{self.shared_memory_mb or DEFAULT_SHM_MB}m", "--env-file", str(secret)),
            *("--memory", f"{application['memory']}g", "--volume", f"{self._files.directory}:/home/cdsw", "--workdir", "/home/cdsw"),
            *("--volume", f"{ROOT}/tests/fakes/cai/pod.py:/pod.py:ro", "--volume", f"{copy}:/script.py:ro", "--entrypoint", "python"),
            *(self._images[application["runtime_identifier"]], "/pod.py", "/script.py", str(FORWARD_PORT)),
        ).stdout.strip()
        secret.unlink()
        self.addresses[name] = address

    def stop(self, application: dict[str, Any]) -> None:
        container = self.ids.pop(application["id"], None)
        self.addresses.pop(application["id"], None)
        if container:
            run("docker", "rm", "--force", "--volumes", container)
        application["status"] = "APPLICATION_STOPPED"

    def refresh(self, application: dict[str, Any]) -> None:
        container = self.ids.get(application["id"])
        if container is None or application["status"] in ("APPLICATION_FAILED", "APPLICATION_STOPPED"):
            return
        state = json.loads(run("docker", "inspect", "--format", "{{json .State}}", container).stdout)
        if not state["Running"]:
            application["status"] = "APPLICATION_FAILED" if state["ExitCode"] else "APPLICATION_STOPPED"
        elif application["status"] == "APPLICATION_STARTING" and self._answers(application):
            application["status"] = "APPLICATION_RUNNING"

    def url(self, application: dict[str, Any]) -> str | None:
        """Where the platform's proxy finds an application's published port."""
        address = self.addresses.get(application["id"])
        return f"http://{address}:{FORWARD_PORT}" if address else None

    def log(self, application_id: str) -> str:
        done = run("docker", "logs", self.ids[application_id], check=False)
        return done.stdout + done.stderr

    def close(self) -> None:
        """Remove all of it."""
        for container in self.ids.values():
            run("docker", "rm", "--force", "--volumes", container, check=False)
        run("docker", "network", "rm", self.network, check=False)

    def _answers(self, application: dict[str, Any]) -> bool:
        """[doc] The polled path is ``/``."""
        try:
            return httpx.get(f"{self.url(application)}/", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _variables(self, application: dict[str, Any], address: str) -> dict[str, str]:
        """What the platform sets in every session [doc]."""
        ports = {name: str(APP_PORT) for name in ("CDSW_APP_PORT", "CDSW_READONLY_PORT", "CDSW_PUBLIC_PORT")}
        return ports | {
            "CDSW_PROJECT_ID": PROJECT,
            "CDSW_ENGINE_ID": uuid.uuid4().hex[:16],
            "CDSW_ENGINE_TYPE": "ml_runtime",
            "CDSW_IP_ADDRESS": address,
            "CDSW_DOMAIN": self._domain,
            "CDSW_API_URL": f"http://{self._domain}/api/v1",
            "CDSW_APIV2_KEY": KEY,
            "CDSW_CPU_MILLICORES": str(int(application["cpu"] * 1000)),
            "CDSW_MEMORY_MB": str(int(application["memory"] * 1000)),
        }


def _free_subnet(network: str) -> str:
    """One that Docker would take for a network now."""
    run("docker", "network", "create", network)
    (config,) = json.loads(run("docker", "network", "inspect", network).stdout)[0]["IPAM"]["Config"]
    run("docker", "network", "rm", network)
    return str(config["Subnet"])
