"""What is served, and from what: the commands ``serve``, ``gateway``, ``deploy``, ``fetch`` and ``upgrade``."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ray_serve_cai.commands import common
from ray_serve_cai.errors import UnavailableError


def serve(arguments: argparse.Namespace) -> int:
    """Apply the configuration and watch; the launcher's head runs this as a child."""
    from ray_serve_cai import config, logs
    from ray_serve_cai.node import command, discovery, machine
    from ray_serve_cai.node.address import everywhere
    from ray_serve_cai.serving import controller

    logs.set_up(common.log_level(), "serve", common.log_format())
    given = config.load(arguments.config) if arguments.config else config.from_environment(os.environ)
    here = machine.inspect()
    planned = discovery.plan(os.environ, here)
    logs.speak_as(planned.role)
    address = os.environ.get("RAY_ADDRESS") or str(command.gcs_address(planned, planned.node_ip or here.primary_ip()))
    settings = controller.ServeSettings(
        ray_address=address,
        min_nodes=planned.min_nodes,
        serve_port=planned.ports.serve_http,
        dashboard_port=planned.ports.dashboard,
        state_file=common.state_file(),
        deployed_file=Path(os.environ.get("RSCAI_DEPLOYED_FILE") or common.state_file().with_name("deployed.json")),
        alone=planned.role == "single",
        min_gpus=planned.min_gpus,
        serve_host=everywhere(planned.node_ip),
    )
    controller.run(given, common.builder(planned.drain_s), settings)
    return 0


def gateway(arguments: argparse.Namespace) -> int:
    """Pass requests on; the launcher's head runs this as a child where several models share an address."""
    import asyncio

    from ray_serve_cai import logs
    from ray_serve_cai.serving import gateway

    logs.set_up(common.log_level(), "gateway", common.log_format())
    logs.speak_as("head")
    asyncio.run(gateway.run(gateway.Settings(arguments.socket, arguments.models, arguments.state_file, arguments.max_body_mb << 20)))
    return 0


def deploy(arguments: argparse.Namespace) -> int:
    """Hand the serving process a configuration, and show what becomes of it."""
    from ray_serve_cai import config
    from ray_serve_cai.serving import mailbox

    wanted: dict[str, object] = {}
    if arguments.config == "-":
        wanted = config.parse(config.read_yaml("/dev/stdin"), "standard input").model_dump(exclude_unset=True)
    elif arguments.config:
        wanted = config.load(arguments.config).model_dump(exclude_unset=True)
    directory = next(
        (file.parent for file in (common.state_file(), Path(f"/tmp/ray-serve-cai-{os.getuid()}/state.json")) if file.exists()), None
    )
    if directory is None:
        raise UnavailableError("no configuration is served by this node; run this on the head, once it serves.")
    request = mailbox.Request(wanted, arguments.allow_downtime, arguments.dry_run, arguments.cancel)
    said = set[str]()
    for answer in mailbox.Mailbox(directory).follow(request, arguments.timeout):
        done = answer.state == mailbox.DONE
        if arguments.json and answer.state != mailbox.UNDER_WAY:
            print(json.dumps({"state": answer.state, "plan": answer.plan, "error": answer.error}))
        for line in [*(f"{model}: {step}" for model, step in answer.plan.items()), answer.detail, "done" if done else ""]:
            if line and line not in said and not arguments.json:
                said.add(line)
                print(line, flush=True)
    return 0


def fetch(arguments: argparse.Namespace) -> int:
    """Have a model in the cache."""
    from ray_serve_cai.fetch import command
    from ray_serve_cai.node import secret_files

    env = secret_files.read(os.environ)
    return command.run(arguments.model, env, revision=arguments.revision, verify=arguments.verify, as_json=arguments.json)


def upgrade(arguments: argparse.Namespace) -> int:
    """Show the plan, or act and say how long nobody got an answer."""
    from ray_serve_cai.upgrade import steps

    outcome = steps.run(
        steps.Options(
            image=arguments.image,
            files=tuple(arguments.file),
            project=arguments.project_name,
            timeout_s=arguments.timeout,
            dry_run=arguments.dry_run,
            rollback=not arguments.no_rollback,
            allow_degraded=arguments.allow_degraded,
            allow_changes=arguments.allow_changes,
        )
    )
    if arguments.json:
        print(json.dumps(outcome.as_dict(), indent=2))
    else:
        for line in outcome.lines():
            print(line)
    if outcome.error:
        raise outcome.error
    return 0
