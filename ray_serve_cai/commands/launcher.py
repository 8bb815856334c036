"""What a node would do, does, and lacks, and who may use it: the commands ``node``, ``plan``, ``doctor`` and ``key``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ray_serve_cai.commands import common
from ray_serve_cai.errors import RayServeCaiError, UsageError

if TYPE_CHECKING:
    from ray_serve_cai.engines.engine_config import EngineConfig
    from ray_serve_cai.node.discovery import NodePlan
    from ray_serve_cai.state import ModelFiles


def node(arguments: argparse.Namespace) -> int:
    """Run the launcher until it is told to stop."""
    import asyncio

    from ray_serve_cai import config, keys, logs
    from ray_serve_cai.node import discovery, machine, secret_files
    from ray_serve_cai.node.supervisor import DEPLOYED, Served, Supervisor, directories
    from ray_serve_cai.serving import app, deployed
    from ray_serve_cai.state import ModelState

    logs.set_up(common.log_level(), "launcher", common.log_format())
    here, env = machine.inspect(), secret_files.read(os.environ)
    planned = discovery.plan(env, here)
    logs.speak_as(planned.role)
    for doubt in planned.doubts:
        logging.warning("%s", doubt)
    if planned.role == "idle":
        said = ", ".join(f"{name} is {value}" for name, value in planned.variables.items())
        logging.info("%s: the first process of this machine runs the node; this one has nothing to do", said)
        return 0
    served = None
    if planned.role != "worker":
        kept = directories(env)[1] / DEPLOYED
        given, engines = deployed.current(kept, config.from_environment(env), common.builder(planned.drain_s))
        _check_alone(planned, engines)
        served = Served(
            models=tuple(ModelState(engine.name, engine.engine) for engine in engines),
            files=app.files(engines),
            max_body_mb=given.server.max_body_mb,
            spanning=tuple({engine.engine for engine in engines if engine.nodes > 1}),
            keys=keys.source(env),
            guarded="VLLM_API_KEY" in env or all(engine.arguments.get("api_key") for engine in engines),
        )
    env = {name: value for name, value in env.items() if name not in (keys.VARIABLE, keys.POINTER)}  # no child needs them
    return asyncio.run(Supervisor(planned, served, here, env, common.installed_engines(), once=arguments.once).run())


def _check_alone(planned: NodePlan, engines: Sequence[EngineConfig]) -> None:
    """See that a node which no other can join has each model's engine, and room for it.

    Raises:
        ConfigError: an engine is not installed.
        ResourceError: a model has no room, or the image's GPUs are not there.
    """
    from ray_serve_cai.engines import registry
    from ray_serve_cai.node import manifest, preflight
    from ray_serve_cai.serving import room
    from ray_serve_cai.state import NodeState

    if planned.role != "single":
        return
    for engine in engines:
        registry.check_installed(engine.info)
    if engines:
        preflight.check_device(planned, manifest.read().device)
    offered = planned.resources
    here = NodeState("", "", alive=True, engines=tuple(common.installed_engines()), cpus=offered.cpus, gpus=offered.gpus)
    room.check_alone(engines, here)


def plan(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit code is the one with which `node` would refuse it.

    As JSON the object has ``error`` where `node` would refuse, also where there is no plan.
    """
    try:
        return _plan(arguments)
    except RayServeCaiError as error:
        if arguments.json:
            print(json.dumps({"error": str(error)}, indent=2))
        raise


def _plan(arguments: argparse.Namespace) -> int:
    from ray_serve_cai import logs
    from ray_serve_cai.node import command, discovery, env_file, hooks, machine, secret_files, tls, token

    env = env_file.read(arguments.env_file, os.environ) if arguments.env_file else secret_files.read(os.environ)
    token.given(env)
    tls.given(env)
    common.log_level(env)
    common.log_format(env)
    here = arguments.env_file is None
    if here:
        hooks.found(env)
    planned = discovery.plan(env, machine.inspect())
    line = [] if planned.role == "idle" else command.ray_start(planned, common.installed_engines(), planned.node_ip)
    document = json.loads(discovery.as_json(planned, line))
    refused = None
    if planned.role in ("head", "single"):
        document["models"], refused = _models(env, planned, here=here)
    if arguments.json:
        print(json.dumps(document | ({"error": str(refused)} if refused else {}), indent=2))
    else:
        for key, value in document.items():
            if key == "doubts" and not value:
                continue
            print(f"{key:15} {_shown(key, value)}")
    if refused:
        print(logs.last_words(str(refused)), file=sys.stderr)
    return refused.exit_code if refused else 0


def _shown(key: str, value: object) -> str:
    """A value of the plan as people read it."""
    if key in ("models", "doubts") and isinstance(value, list):
        return f"\n{'':15} ".join(value)
    if isinstance(value, list):
        return " ".join(value) or "nothing to start"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "none"
    return ("unknown before joining" if key == "node_ip" else "none") if value is None else str(value)


def _models(env: Mapping[str, str], planned: NodePlan, *, here: bool) -> tuple[list[str], RayServeCaiError | None]:
    """What the head would serve, a line for each model and for what its configuration came to mean; or why it could not.

    Args:
        here: on this machine, and not where somebody else's environment comes from.
    """
    from ray_serve_cai import config, keys
    from ray_serve_cai.serving import app

    try:
        given = config.from_environment(env)
        engines = common.builder(planned.drain_s)(given)
        if (source := keys.source(env)) and (here or source.file is None):
            source.read()
        if here:
            _check_alone(planned, engines)
    except RayServeCaiError as error:
        return [f"error: {error}"], error
    return [f"{engine.name}: {engine.layout()}" for engine in engines] + app.notes(given, engines), None


def doctor(arguments: argparse.Namespace) -> int:
    """Print what the checks find; exit 0 where nothing keeps the node from serving."""
    from ray_serve_cai import config
    from ray_serve_cai.node import discovery, machine, manifest, secret_files
    from ray_serve_cai.node import doctor as node_doctor
    from ray_serve_cai.serving import app

    env, here = secret_files.read(os.environ), machine.inspect()
    planned = discovery.plan(env, here)

    def files() -> Sequence[ModelFiles]:
        return app.files(common.builder(planned.drain_s)(config.from_environment(env)))

    running = node_doctor.is_running()
    node = node_doctor.Node(planned, env, here, manifest.read(), common.installed_engines(), files, running)
    findings = node_doctor.examine(node, node_doctor.peer(arguments.peer) if arguments.peer else None)
    return common.tell(findings, as_json=arguments.json, well="nothing keeps this node from serving", broken="this node cannot serve")


def key(arguments: argparse.Namespace) -> int:
    """Make a key: itself for whoever gets it, its entry for the file of keys."""
    from pydantic import ValidationError

    from ray_serve_cai import keys

    made = keys.new()
    models = arguments.models.split(",") if arguments.models else None
    rights = {"models": models, "requests_per_minute": arguments.requests_per_minute, "concurrent": arguments.concurrent}
    entry = {"name": arguments.name, "sha256": keys.digest_of(made), **{name: value for name, value in rights.items() if value}}
    entry |= {"admin": True} if arguments.admin else {}
    try:
        keys.Entry.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]} is {first['input']!r}: {first['msg']}.") from None
    if arguments.json:
        print(json.dumps({"key": made, "entry": entry}))
        return 0
    print(f"the key, shown once: {made}", file=sys.stderr)
    print("its entry, for the file that RSCAI_API_KEYS_FILE names:", file=sys.stderr)
    print("\n".join(f"{'- ' if not number else '  '}{name}: {json.dumps(value)}" for number, (name, value) in enumerate(entry.items())))
    return 0
