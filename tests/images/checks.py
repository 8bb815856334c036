"""What every image has to say of itself, as functions of `docker image inspect` and of what is in it; each gives a list of faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "io.ray-serve-cai."
OCI = "org.opencontainers.image."
RUNTIME = "com.cloudera.ml.runtime."
EXACT = {"engine": "engine", "device": "device", "variant": "variant", "image": "image", "ray.version": "ray", "torch.version": "torch"}
USERS = {"engine": "1000:0", "cai": "cdsw"}
FIXED = {
    "ML_RUNTIME_METADATA_VERSION": "2",
    "ML_RUNTIME_EDITOR": "PBJ Workbench",
    "ML_RUNTIME_KERNEL": "Python 3.11",
    "ML_RUNTIME_GIT_HASH": "",
    "ML_RUNTIME_GBN": "0",
}
ONLY_ENV = {
    "ML_RUNTIME_JUPYTER_KERNEL_GATEWAY_CMD": "/usr/local/bin/jupyter kernelgateway",
    "ML_RUNTIME_JUPYTER_KERNEL_NAME": "python3",
    "JUPYTERLAB_WORKSPACES_DIR": "/tmp",
    "IPYTHONDIR": "/tmp/.ipython",
}
"""What the platform asks for: https://docs.cloudera.com/machine-learning/cloud/runtimes/topics/ml-metadata-for-custom-runtimes.html"""


def labels(inspected: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """Labels against the manifest, which was made from what is installed."""
    found = inspected["Config"]["Labels"]
    wanted = {PREFIX + label: manifest[key] for label, key in EXACT.items()}
    wanted[PREFIX + "engine.version"] = manifest["engine_version"]
    wanted[PREFIX + "python.version"] = ".".join(manifest["python"].split(".")[:2])
    wanted |= {OCI + "version": manifest["package"], OCI + "licenses": "Apache-2.0", OCI + "title": f"ray-serve-cai {manifest['image']}"}
    if manifest["cuda"]:
        wanted[PREFIX + "cuda.version"] = manifest["cuda"]
    faults = [f"label {key} is {found.get(key)!r} and the image holds {value!r}" for key, value in wanted.items() if found.get(key) != value]
    faults += [f"label {OCI}{key} is missing" for key in ("revision", "source", "description", "created") if not found.get(OCI + key)]
    if not manifest["cuda"] and PREFIX + "cuda.version" in found:
        faults.append("a CPU image has a label for CUDA")
    return faults


def user(inspected: Mapping[str, Any], variant: str) -> list[str]:
    """The default user is not root."""
    found = inspected["Config"]["User"]
    return [] if found == USERS[variant] else [f"the user is {found!r} rather than {USERS[variant]!r}"]


def start(inspected: Mapping[str, Any]) -> list[str]:
    """tini is PID 1, the launcher is the command, and health is looked at."""
    config = inspected["Config"]
    wanted: dict[str, Any] = {
        "Entrypoint": ["tini", "--", "ray-serve-cai-entrypoint"],
        "Cmd": ["ray-serve-cai", "node"],
        "StopSignal": "SIGTERM",
        "ExposedPorts": {"8000/tcp": {}},
    }
    faults = [f"{key} is {config.get(key)!r}" for key, value in wanted.items() if config.get(key) != value]
    if config.get("Healthcheck", {}).get("Test") != ["CMD", "ray-serve-cai", "health"]:
        faults.append(f"the health check is {config.get('Healthcheck')!r}")
    return faults


def runtime(inspected: Mapping[str, Any]) -> list[str]:
    """A Cloudera AI runtime: each ENV ML_RUNTIME_* is a label of the same value."""
    environment = dict(line.split("=", 1) for line in inspected["Config"]["Env"])
    found = {key.removeprefix(RUNTIME): value for key, value in inspected["Config"]["Labels"].items() if key.startswith(RUNTIME)}
    told = {
        key.removeprefix("ML_RUNTIME_").lower().replace("_", "-"): value
        for key, value in environment.items()
        if key.startswith("ML_RUNTIME_") and key not in ONLY_ENV
    }
    told["runtime-metadata-version"] = told.pop("metadata-version", None)
    faults = [f"{key}: ENV has {told.get(key)!r}, the label {found.get(key)!r}" for key in sorted(told.keys() | found.keys()) if told.get(key) != found.get(key)]
    wanted = FIXED | ONLY_ENV
    faults += [f"{key} is {environment.get(key)!r} rather than {value!r}" for key, value in wanted.items() if environment.get(key) != value]
    if told.get("full-version") != f"{told.get('short-version')}.{told.get('maintenance-version')}":
        faults.append(f"the full version is {told.get('full-version')!r}")
    if not told.get("description"):
        faults.append("there is no description")
    if not str(told.get("maintenance-version")).isdigit():
        faults.append(f"the maintenance version {told.get('maintenance-version')!r} is no integer")
    if told.get("edition") in (None, "", "Standard", "Nvidia GPU"):
        faults.append(f"the edition {told.get('edition')!r} is empty or reserved")
    if ("cuda-version" in told) != ("io.ray-serve-cai.cuda.version" in inspected["Config"]["Labels"]):
        faults.append(f"the runtime's CUDA version is {told.get('cuda-version')!r}")
    return faults
