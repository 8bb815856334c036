#!/usr/bin/env python3
"""Writes what in docs/*.md follows from the package and the examples: python docs/generate.py [--check]

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything else in a page is written by hand.
Keys, defaults and limits come from the pydantic models, defaults of variables from a plan for an empty environment,
ports and exit codes from their modules, the reference of the Python API from docstrings (docs/reference.py), code from docs/examples.
What only people can say stands in the tables of text below; they are most of this module's lines.
With --check nothing is written, and the exit code is 1 where a page is not up to date.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ray_serve_cai import RayBackend, engine_ports, engines, errors, sources
from ray_serve_cai.cai import CAIClusterManager
from ray_serve_cai.cai.config import CaiConfig, NodeConfig
from ray_serve_cai.config import AutoscalingConfig, ClusterConfig, Config, DashboardConfig, ModelConfig, ResourcesConfig, ServerConfig
from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments
from ray_serve_cai.engines.user_config import UserConfig
from ray_serve_cai.keys import ADMIN, Entry
from ray_serve_cai.node import address, discovery, supervisor
from ray_serve_cai.node.contracts import CONTRACTS
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.ports import Ports

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

NOWHERE = Machine(
    addresses=frozenset(), names=frozenset(), cpus=1, memory_bytes=1 << 33, shm_bytes=1 << 30, gpus=0, source_ip=lambda _: None
)
DEFAULTS = discovery.plan({}, NOWHERE)

VARIABLES: dict[str, dict[str, tuple[str, str]]] = {
    "Role and cluster": {
        "RSCAI_ROLE": ("`auto`", "`head`, `worker`, `single` (head and worker in one) or `auto`."),
        "RSCAI_HEAD_ADDRESS": (
            "none",
            f"`host` or `host:port` of the head; the port is {address.GCS_PORT} if not given. "
            f"IPv6 with a port: `[fd00::1]:{address.GCS_PORT}`. "
            "With role `auto`, the node that has this address is the head and every other one is a worker.",
        ),
        "RSCAI_NODE_IP": (
            "the address of the route to the head",
            "IP address under which other nodes reach this one, or the network in which it is, for example `10.0.0.0/16`.",
        ),
        "RSCAI_MIN_NODES": (
            f"the nodes of the scheduler's group, else `{DEFAULTS.min_nodes}`",
            "The head deploys the models once this many nodes are alive, the head counted.",
        ),
        "RSCAI_MIN_GPUS": ("`0`", "As `RSCAI_MIN_NODES`: the GPUs of all living nodes together."),
        "RSCAI_TOKEN": (
            "made by the head",
            "The cluster token, equal on all nodes: at least 16 letters and digits, for example from `openssl rand -hex 24`.",
        ),
        "RSCAI_TOKEN_FILE": ("none", "Path of a file that holds the token, instead of `RSCAI_TOKEN`."),
        "RSCAI_STATE_DIR": (
            f"`{supervisor.STATE_DIR}`",
            f"Directory of the token file, shared by nodes on one machine as a volume. If it is not writable: `{supervisor.RUN_DIR}`.",
        ),
    },
    "Models": {
        "RSCAI_CONFIG": ("none", "Path of a YAML file in the container. The other variables of this group must then be unset."),
        "RSCAI_MODEL": ("`demo`", f"A name under `{sources.SHIPPED}`, a path in the container, or a Hugging Face id."),
        "RSCAI_MODEL_NAME": (
            "the value of `RSCAI_MODEL`",
            "Name of the model in the API, as requests give it in `model`. Without it `demo` is `demo`, a hub id is the whole id, "
            "`Qwen/Qwen3-0.6B`, and a path is the whole path in the container, `/models/mine`, less a slash at its end.",
        ),
        "RSCAI_ENGINE": ("the engine of the image", "A registered engine: `ray-serve-cai engines` lists them."),
        "RSCAI_ENGINE_ARGS": ("none", 'The engine\'s arguments as a JSON object, for example `{"max_model_len": 2048}`.'),
    },
    "Listening": {
        "RSCAI_HOST": (f"`{DEFAULTS.host}`, or `::` where the node's own address is IPv6", "IP address that the front door listens on."),
        "RSCAI_PORT": (f"`{DEFAULTS.ports.front_door}`", "Port of the front door."),
        "RSCAI_ENGINE_PORTS": (
            f"`{engine_ports.DEFAULT[0]}-{engine_ports.DEFAULT[1]}`",
            "Range of the ports on which the ranks of one replica find each other.",
        ),
        "RSCAI_SERVE_PORT": (f"`{DEFAULTS.ports.serve_http}`", "Port of Ray Serve's own ingress."),
        "RSCAI_STATUS_PORT": (f"`{DEFAULTS.ports.status}`", "Port of the launcher's status server; equal on all nodes."),
    },
    "Access": {
        "RSCAI_API_KEYS_FILE": ("none", "On the head: path of a file of API keys; see [keys](keys.md). It is read again when it changes."),
        "RSCAI_API_KEYS": (
            "none",
            f"API keys themselves, apart by commas, each alone or as `name=key`; `{ADMIN}=...` is an admin's. None: anybody may ask.",
        ),
    },
    "Resources": {
        "RSCAI_NUM_CPUS": ("the container's limit, or the machine's CPUs", "CPUs that this node offers to Ray."),
        "RSCAI_NUM_GPUS": ("what the driver counts, within `CUDA_VISIBLE_DEVICES`", "GPUs that this node offers to Ray."),
        "RSCAI_MEMORY_BYTES": ("what the container may use, less the object store and 1 GiB", "Memory that this node offers to Ray."),
        "RSCAI_OBJECT_STORE_BYTES": ("half of `/dev/shm`, from 80 to 512 MiB", "Size of Ray's object store."),
    },
    "Times, logs and errors": {
        "RSCAI_JOIN_TIMEOUT_S": (f"`{DEFAULTS.join_timeout_s}`", "Seconds that a worker waits for its head."),
        "RSCAI_DRAIN_S": (f"`{DEFAULTS.drain_s}`", "Seconds that running requests may take after SIGTERM; a second signal ends them."),
        "RSCAI_HOOKS_DIR": (
            "`/opt/ray-serve-cai/hooks.d`",
            "Directory of programs that each node runs before it starts, in the order of their names; one that fails ends the start.",
        ),
        "RSCAI_LOG_FORMAT": ("`text`", "`text`, or `json` for one object per line."),
        "RSCAI_LOG_LEVEL": ("`info`", "`debug`, `info`, `warning` or `error`."),
        "RSCAI_TRACEBACK": ("`0`", "`1` shows the Python traceback of an error instead of its one line."),
    },
    "Set in applications of Cloudera AI that make a cluster; do not set them": {
        "RSCAI_CLUSTER": ("none", "The cluster that an application belongs to."),
        "RSCAI_CLUSTER_SPEC": ("none", "A digest of all that was asked for."),
        "RSCAI_CLUSTER_DIR": ("none", "The cluster's directory in the project."),
        "RSCAI_CLUSTER_NODE": ("none", "The application's name."),
        "RSCAI_CLUSTER_CROSSING": ("`0`", "`1`: a model's ranks cross nodes, so each node tries the ways to the others before it joins."),
        "RSCAI_CLUSTER_WORKERS": ("none", "The workers that a head starts itself, with `mode: workers`."),
        "RSCAI_PORT_SHARED": ("`0`", "`1`: another program answers on the front door's port until that is open."),
    },
    "Set by the launcher for its own child; do not set it": {
        "RSCAI_STATE_FILE": ("in the launcher's directory under `/tmp`", "Where the serving process writes the cluster's state."),
        "RSCAI_DEPLOYED_FILE": ("in `RSCAI_STATE_DIR`", "Where it keeps the configuration of the last update, for the head's next start."),
    },
}
"""Group -> variable -> default and meaning: each RSCAI_ variable that the package reads."""

FOREIGN = {
    "HF_TOKEN": "Token for gated models on the Hugging Face hub.",
    "VLLM_API_KEY": "The key that vLLM asks of clients.",
    "HF_TOKEN_FILE, VLLM_API_KEY_FILE": "Path of a file that holds the secret, instead of the variable itself.",
    "HF_HOME": "Directory of the hub's cache; the images set it to a directory in the state volume.",
    "HF_HUB_CACHE": "Directory of the hub's snapshots, where it is not under `HF_HOME`.",
    "HF_ENDPOINT": f"Another hub than {sources.HUB}.",
    "HF_HUB_OFFLINE": "`1`: never ask the hub; only the cache counts. See [models](models.md).",
    "HF_HUB_DOWNLOAD_TIMEOUT": "Seconds without a byte after which a connection of a download counts as ended; 10 by default.",
    "RAY_USE_TLS": "`1`: TLS on all of Ray's own connections, with the three files below; equal on all nodes.",
    "RAY_TLS_SERVER_CERT": "Path of this node's certificate, PEM.",
    "RAY_TLS_SERVER_KEY": "Path of its key, PEM without a passphrase.",
    "RAY_TLS_CA_CERT": "Path of the certificate of the authority that signed those of all nodes.",
    "VLLM_CPU_KVCACHE_SPACE": "GiB for vLLM's KV cache on CPUs; the CPU image sets 1.",
    "RAY_HEAD_ADDRESS": "As `RSCAI_HEAD_ADDRESS`, where that is not set.",
    "RAY_NODE_IP": "As `RSCAI_NODE_IP`, where that is not set; then `VLLM_HOST_IP`, then `CDSW_IP_ADDRESS`.",
}

HOST = {
    "MODEL": ("`demo`", "A shipped name, a Hugging Face id, or a directory of this machine; a directory is mounted into every container."),
    "MODEL_NAME": ("`MODEL`; of a directory its last part", "Name of the model in the API."),
    "WORKERS": ("`1`", "Worker containers beside the head."),
    "ENGINE": ("`vllm`", "The engine, and with it the image."),
    "ENGINE_ARGS": ("none", "As `RSCAI_ENGINE_ARGS`."),
    "PORT": ("`8000`", "Port of this machine."),
    "BIND": ("`127.0.0.1`", "Address of this machine that the port is published on; `0.0.0.0` opens it to the network."),
    "READY_TIMEOUT_S": ("`600`", "Seconds that `make up` waits for ready."),
    "HF_TOKEN": ("none", "Passed to the containers."),
    "HF_ENDPOINT": ("none", "Passed to the containers."),
    "HF_HUB_OFFLINE": ("none", "Passed to the nodes, and not to `fetch`."),
    "SSL_CERT_FILE": ("none", "CA bundle for builds behind a proxy that opens TLS; else that of `PIP_CERT` or `REQUESTS_CA_BUNDLE`."),
    "IMAGE": ("the one that is built", "An image that Docker has or pulls; `make up` then builds none."),
    "DEBIAN_MIRROR": ("none", "Where builds, and Docker on Debian 12, take packages from; [behind a firewall](offline.md)."),
    "DEBIAN_SECURITY_MIRROR": ("`DEBIAN_MIRROR` and `-security`", "Where its security updates are; empty: nowhere."),
    "WHEELHOUSE": ("none", "What `make wheelhouse` collected: builds take everything from there, and nothing from a network."),
    "BASE_IMAGE": ("the one in `images/versions.json`", "Another base image for the build."),
    "RSCAI_INSTALL_DOCKER": ("`yes`", "`no` forbids the installation of Docker."),
}
"""What ``make`` and its scripts read on the machine that runs Docker."""

PORTS = {
    "front_door": "The public listener: `/health`, `/ready`, `/v1`, `/models/<name>`.",
    "serve_http": "Ray Serve's ingress, on all interfaces; the front door and other nodes use it.",
    "status": "The launcher's status server: on all interfaces of a head, where workers ask with the token; else on 127.0.0.1.",
    "gcs": "Ray's control service; workers join here.",
    "node_manager": "Ray's node manager.",
    "object_manager": "Ray's object manager.",
    "runtime_env_agent": "Ray's runtime environment agent.",
    "dashboard_agent_grpc": "Ray's dashboard agent, gRPC.",
    "dashboard_agent_http": "Ray's dashboard agent, HTTP.",
    "metrics_export": "Ray's metrics.",
    "ray_client": "Ray client.",
    "dashboard": "Ray's dashboard, on 127.0.0.1.",
    "haproxy_metrics": "Metrics of Ray Serve's HAProxy, on all interfaces without a password: do not publish it.",
    "haproxy_stats": "Statistics of Ray Serve's HAProxy, on all interfaces without a password: do not publish it.",
    "serve_fallback": "Ray Serve's own proxy behind its HAProxy, on all interfaces without a password: do not publish it.",
    "autoscaler_metrics": "Metrics of Ray's autoscaler.",
    "dashboard_metrics": "Metrics of Ray's dashboard.",
    "workers": "Ray's worker processes.",
}
KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
}
"""Types of JSON's schema, in words."""
PORT_VARIABLES = ("RSCAI_PORT", "RSCAI_SERVE_PORT", "RSCAI_STATUS_PORT", "RSCAI_HEAD_ADDRESS")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *(tuple(_cell(text) for text in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    """Bars would end the cell, and ``<name>`` outside of code would be a tag."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def keys(model: type[BaseModel]) -> str:
    """The table of one configuration model."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    needed = [name for name in required if _is_needed(model, required, name)]
    rows = []
    for name, field in schema["properties"].items():
        meaning, _, said = (model.model_fields[name].description or "").partition(" Default: ")
        default = "required" if name in needed else said.rstrip(".") or _default(field)
        rows.append((f"`{name}`", _type(field), default, meaning))
    return table(("Key", "Type and limits", "Default", "Meaning"), rows)


def _is_needed(model: type[BaseModel], required: list[str], name: str) -> bool:
    """Whether a file must have the key: some that the model requires follow from others."""
    try:
        model.model_validate({other: "demo" for other in required if other != name})
    except ValidationError:
        return True
    return False


def _type(field: dict[str, Any]) -> str:
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    return " or ".join(_one_type(option) for option in options)


def _one_type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "$ref" in field:
        return "mapping, see below"
    kind = KINDS[field["type"]]
    low, above, high = field.get("minimum"), field.get("exclusiveMinimum"), field.get("maximum")
    limits = [f"from {low}"] if low is not None else [f"above {above:g},"] if above is not None else []
    limits += [f"up to {high:g}" if isinstance(high, float) else f"to {high}"] if high is not None else []
    if "minItems" in field:
        limits.append(f"at least {field['minItems']} entry")
    if "maxLength" in field:
        limits.append(f"{field.get('minLength', 0)} to {field['maxLength']} characters")
    return f"{kind}, {' '.join(limits)}" if limits else kind


def _default(field: dict[str, Any]) -> str:
    return f"`{field['default']}`" if field.get("default") is not None else "none"


def variables() -> str:
    """The launcher's variables, by group."""
    parts = []
    for group, rows in VARIABLES.items():
        parts.append(f"**{group}**\n\n" + table(("Variable", "Default", "Meaning"), ((f"`{name}`", *row) for name, row in rows.items())))
    return "\n".join(parts)


def foreign() -> str:
    """Variables of others that have a meaning here."""
    return table(("Variable", "Meaning"), ((f"`{name}`", meaning) for name, meaning in FOREIGN.items()))


def host() -> str:
    """The variables of make."""
    return table(("Variable", "Default", "Meaning"), ((f"`{name}`", *row) for name, row in HOST.items()))


def ports() -> str:
    """The port plan. The variable that moves a port is found by planning with it."""
    plan = Ports()
    numbers = plan.as_dict()
    first, last = numbers.pop("workers_first"), numbers.pop("workers_last")
    rows = []
    for name, number in numbers.items():
        roles = "all" if name in plan.listening("worker") else "head"
        rows.append((f"{number}", name, roles, _variable(name), PORTS[name]))
    rows.append((f"{first}-{last}", "workers", "all", "", PORTS["workers"]))
    unknown = PORTS.keys() - numbers.keys() - {"workers"}
    if unknown:
        raise SystemExit(f"docs/generate.py: no such ports in ray_serve_cai/node/ports.py: {', '.join(sorted(unknown))}; remove them.")
    return table(("Port", "Name", "Nodes", "Set by", "What listens"), rows)


def _variable(port: str) -> str:
    for name in PORT_VARIABLES:
        moved = discovery.plan({name: "head:7777" if name == "RSCAI_HEAD_ADDRESS" else "7777"}, NOWHERE)
        if moved.ports.as_dict()[port] == 7777:
            return f"`{name}`"
    return ""


def images() -> str:
    """The matrix of images, from images/versions.json, with the sizes that were measured."""
    versions = json.loads((DOCS.parent / "images/versions.json").read_text(encoding="utf-8"))
    sizes = json.loads((DOCS / "images-sizes.json").read_text(encoding="utf-8"))["images"]
    release = version("ray-serve-cai")
    rows = []
    for name, image in versions["images"].items():
        packages = image["packages"]
        engine = f"{image['engine']}{packages[image['distribution']]}"
        tag = f"{release}-{engine}-{'cu' + image['cuda'].replace('.', '') if image['cuda'] else 'cpu'}"
        weights = ", ".join(_gigabytes(sizes.get(one)) for one in (name, f"{name}-cai"))
        rows.append(
            (f"`{name}`, `{name}-cai`", f"`{tag}`, `{tag}-cai`", packages["torch"], image["cuda"] or "none", packages["ray"], weights)
        )
    return table(("Images", "Tags of this release", "torch", "CUDA", "Ray", "GB (with zstd)"), rows)


def _gigabytes(size: dict[str, Any] | None) -> str:
    return f"{size['size'] / 1e9:.2f} ({size['zstd'] / 1e9:.2f})" if size else "not measured"


def runtimes() -> str:
    """What each Cloudera AI runtime is called there, from the bake file."""
    bake = (DOCS.parent / "images/docker-bake.hcl").read_text(encoding="utf-8")
    rows = []
    for name, text in re.findall(r'^target "(\S+-cai)" \{\n(.*?)^\}', bake, re.MULTILINE | re.DOTALL):
        said = dict(re.findall(r'ML_RUNTIME_(\w+) = "(.*)"', text))
        full = f"{said['SHORT_VERSION']}.{said['MAINTENANCE_VERSION']}"
        rows.append((f"`{name}`", said["EDITION"], said["KERNEL"], full, said["CUDA_VERSION"] or "none"))
    return table(("Image", "Edition", "Kernel", "Version", "CUDA"), rows)


def exit_codes() -> str:
    """Exit codes and the errors that have them."""
    meanings: dict[int, list[str]] = {0: ["It did what it was asked to do; a node that was told to stop has stopped."]}
    for error in errors.ERRORS_BY_NAME.values():
        if error is not errors.RayServeCaiError:
            meanings.setdefault(error.exit_code, []).append((error.__doc__ or "").strip().splitlines()[0])
    meanings[130] = ["Interrupted from the keyboard."]
    return table(("Exit code", "Meaning"), ((f"{code}", " ".join(meanings[code])) for code in sorted(meanings)))


def contract_table() -> str:
    """How schedulers say a container's place, in the order of precedence."""
    rows = ((one.name, ", ".join(f"`{name}`" for name in one.variables), one.meaning) for one in CONTRACTS)
    return table(("Contract", "Variables", "How they decide"), rows)


REFERENCE = runpy.run_path(str(DOCS / "reference.py"))
DASHBOARD = runpy.run_path(str(DOCS / "dashboard.py"))
GRAFANA = DOCS.parent / "compose/observability/dashboard.json"
PROTOCOLS = (engines.ConfigBuilderProtocol, engines.LLMEngineProtocol, engines.DeploymentFactoryProtocol)


def protocols() -> str:
    """The three parts of an engine."""
    return "\n".join(f"### {protocol.__name__}\n\n{REFERENCE['whole'](protocol)}" for protocol in PROTOCOLS)


def registry() -> str:
    """The registry, and the two functions for the one of the process."""
    functions = (engines.get_registry.__wrapped__, engines.register_engine)
    shown = [f"#### `{one.__name__}`\n\n{REFERENCE['called'](one.__name__, one)}\n{REFERENCE['described'](one)}" for one in functions]
    return REFERENCE["whole"](engines.EngineRegistry) + "\n" + "\n".join(shown)


def exports() -> str:
    """What ``ray_serve_cai.engines`` exports."""
    return table(("Name", "What it is"), ((f"`{name}`", REFERENCE["summary"](getattr(engines, name))) for name in engines.__all__))


def error_classes() -> str:
    """The exception tree."""
    rows = []
    for name, error in errors.ERRORS_BY_NAME.items():
        rows.append((f"`{name}`", f"`{error.__bases__[0].__name__}`", f"{error.exit_code}", REFERENCE["summary"](error)))
    return table(("Class", "Is a", "Exit code", "Meaning"), rows)


def engine_config() -> str:
    """`EngineConfig`, and the function that makes one of a config builder's arguments."""
    made = REFERENCE["called"]("of_arguments", of_arguments)
    return f"{REFERENCE['card'](EngineConfig)}\n{made}\n{REFERENCE['described'](of_arguments)}"


SAMPLES: dict[str, Any] = {
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 2,
    "dtype": "float16",
    "load_format": "dummy",
    "gpu_memory_utilization": 0.5,
    "max_model_len": 512,
    "trust_remote_code": True,
    "download_dir": "/weights",
    "enable_prefix_caching": False,
    "disable_log_stats": True,
    "custom_chat_template": "/template.jinja",
}
"""A value of each key that becomes an argument of the engine."""


def engine_arguments() -> str:
    """What each key of a model becomes in each engine, found by building with it and without it."""
    builders = {name: engines.get_registry().config_builder(name) for name in ("vllm", "sglang")}
    rows = []
    for key, value in SAMPLES.items():
        cells = [f"`{key}: {json.dumps(value)}`"]
        for builder in builders.values():
            without, given = (builder.build_config({"model": "demo", "use_cpu": False, **more}) for more in ({}, {key: value}))
            changed = {name: made for name, made in given.items() if without.get(name) != made}
            cells.append(", ".join(f"`{name}: {json.dumps(made)}`" for name, made in changed.items()))
        rows.append(tuple(cells))
    return table(("Key", "vLLM", "SGLang"), rows)


def example(name: str, language: str) -> Callable[[], str]:
    """A file below docs/examples, whole."""
    return lambda: REFERENCE["source"](f"examples/{name}", language)


def panels() -> str:
    """What the dashboard shows."""
    return table(("Panel", "Shows"), ((panel.title, panel.meaning) for panel in DASHBOARD["PANELS"]))


def alerts() -> str:
    """The alert rules."""
    (group,) = yaml.safe_load((GRAFANA.parent / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    rows = ((f"`{rule['alert']}`", rule["for"], rule["labels"]["severity"]) for rule in group["rules"])
    return table(("Alert", "After", "Severity"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "top_level": lambda: keys(Config),
    "models": lambda: keys(ModelConfig),
    "autoscaling": lambda: keys(AutoscalingConfig),
    "server": lambda: keys(ServerConfig),
    "cluster": lambda: keys(ClusterConfig),
    "cluster_dashboard": lambda: keys(DashboardConfig),
    "cluster_resources": lambda: keys(ResourcesConfig),
    "keys": lambda: keys(Entry),
    "panels": panels,
    "alerts": alerts,
    "cai": lambda: keys(CaiConfig),
    "cai_head": lambda: keys(NodeConfig),
    "cai_manager": lambda: REFERENCE["whole"](CAIClusterManager),
    "variables": variables,
    "foreign": foreign,
    "contracts": contract_table,
    "host": host,
    "images": images,
    "runtimes": runtimes,
    "ports": ports,
    "exit_codes": exit_codes,
    "ray_backend": lambda: REFERENCE["whole"](RayBackend),
    "user_config": lambda: keys(UserConfig),
    "engine_info": lambda: REFERENCE["card"](engines.EngineInfo),
    "engine_config": engine_config,
    "protocols": protocols,
    "registry": registry,
    "exports": exports,
    "error_classes": error_classes,
    "echo_engine": example("echo_engine/echo_engine.py", "python"),
    "echo_project": example("echo_engine/pyproject.toml", "toml"),
    "echo_dockerfile": example("echo_engine/Dockerfile", "dockerfile"),
    "basic_vllm": example("basic_vllm.py", "python"),
    "sglang_deployment": example("sglang_deployment.py", "python"),
    "engine_selection": example("engine_selection.py", "python"),
    "engine_arguments": engine_arguments,
}


def render(page: str) -> str:
    """A page with its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


def main(arguments: list[str]) -> int:
    """Write the pages and the dashboard, or compare them."""
    if arguments not in ([], ["--check"]):
        print("usage: docs/generate.py [--check]", file=sys.stderr)
        return 64
    stale = []
    pages = {path: render(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md"))}
    for path, made in {**pages, GRAFANA: DASHBOARD["text"]()}.items():
        if not path.exists() or made != path.read_text(encoding="utf-8"):
            stale.append(path.name)
            if not arguments:
                path.write_text(made, encoding="utf-8")
    if stale and arguments:
        print(f"docs/generate.py: not up to date: {', '.join(stale)}; run docs/generate.py.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
