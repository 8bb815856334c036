"""``ray-serve-cai``: node, plan, doctor, health, status, serve, deploy, upgrade, engines. Each command imports only what it needs.

One module for all commands: each is a few lines that hand over to the package.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ray_serve_cai.errors import EngineError, RayServeCaiError, ResourceError, UnavailableError, UsageError, counted

if TYPE_CHECKING:
    from ray_serve_cai.config import Config
    from ray_serve_cai.engines.engine_config import EngineConfig

POLL_S = 0.5


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code follows sysexits.h."""
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except RayServeCaiError as error:
        if os.environ.get("RSCAI_TRACEBACK", "") in ("1", "true", "yes"):
            raise
        if str(error):
            print(f"ray-serve-cai: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


class _Parser(argparse.ArgumentParser):
    """Usage errors leave with EX_USAGE rather than argparse's 2."""

    def error(self, message: str) -> None:  # type: ignore[override]  # it does not return
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"ray-serve-cai: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ray-serve-cai", description="Serve large language models from a cluster of containers.")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    made = command(
        "node", node, "Run this container's part of the cluster; its role comes from the environment.", "RSCAI_ROLE=head ray-serve-cai node"
    )
    made.add_argument(
        "--once", action="store_true", help="leave when the head refuses this node (default: say so, and try again every minute)"
    )
    made = command("plan", plan, "Show what `node` would do, and start nothing.", "ray-serve-cai plan --json --env-file worker.env")
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made.add_argument(
        "--env-file", type=Path, metavar="F", help="plan for the environment in this file (Docker's format; - is standard input)"
    )
    made = command(
        "doctor", doctor, "Look for what would keep this node from serving, each with its fix.", "ray-serve-cai doctor --peer head"
    )
    made.add_argument("--peer", metavar="HOST", help="also look at the way to this node (default: a worker's head)")
    made.add_argument("--json", action="store_true", help="print a list for scripts")
    made = command("health", health, "Ask this node's launcher; exit 0 if the node does its work.", "ray-serve-cai health --live")
    made.add_argument("--live", action="store_true", help="only ask whether the launcher answers")
    made.add_argument("--json", action="store_true", help="print the answer as an object")
    made = command(
        "status", status, "Show phase, models and nodes, as this node's launcher sees them.", "ray-serve-cai status --wait --timeout 300"
    )
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made.add_argument("--wait", action="store_true", help="show each phase until the node is ready")
    made.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds to wait (default: %(default)s)")
    made = command(
        "serve", serve, "Apply a configuration to the running cluster and watch it.", "ray-serve-cai serve --config configs/local_cpu.yaml"
    )
    made.add_argument("--config", type=Path, metavar="F", help="YAML file (default: RSCAI_CONFIG, or RSCAI_MODEL and its companions)")
    made = command(
        "deploy",
        deploy,
        "Bring the running cluster to a changed configuration while it serves; run it on the head.",
        "docker compose -f compose/cpu.yaml exec -T head ray-serve-cai deploy --config - < models.yaml",
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="F", help="YAML file, or - for standard input")
    what.add_argument("--cancel", action="store_true", help="end the update that is under way; the former configuration comes back")
    made.add_argument("--dry-run", action="store_true", help="show what would become of each model, and change nothing")
    made.add_argument(
        "--allow-downtime", action="store_true", help="where there is no room for both: end old replicas before new ones start"
    )
    made.add_argument(
        "--timeout", type=float, default=1800, metavar="S", help="seconds to wait; the update goes on after that (default: %(default)s)"
    )
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made = command(
        "upgrade",
        upgrade,
        "Bring a running Compose cluster to another image, and back if that does not serve; run it where Docker runs.",
        "ray-serve-cai upgrade ray-serve-cai:vllm-cpu --dry-run",
    )
    made.add_argument("image", metavar="IMAGE", help="the image to run from now on; it is pulled if it is not here")
    made.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="F",
        help="compose file, repeatable (default: COMPOSE_FILE, or compose/cpu.yaml)",
    )
    made.add_argument("-p", "--project-name", metavar="P", help="Compose's project (default: as Compose decides)")
    made.add_argument("--dry-run", action="store_true", help="check everything, show the plan, and touch nothing")
    made.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds for the new image to serve (default: %(default)s)")
    made.add_argument("--no-rollback", action="store_true", help="leave an image that does not serve as it is")
    made.add_argument("--allow-degraded", action="store_true", help="go on although the cluster is not ready now")
    made.add_argument("--allow-changes", action="store_true", help="go on although compose files and variables changed more than the image")
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made = command("engines", engines, "List the engines, and which are installed here.", "ray-serve-cai engines --json")
    made.add_argument("--json", action="store_true", help="print a list for scripts")
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ray_serve_cai import __version__

        print(f"ray-serve-cai {__version__}")
        parser.exit()


def node(arguments: argparse.Namespace) -> int:
    """Run the launcher until it is told to stop."""
    import asyncio

    from ray_serve_cai import config, logs
    from ray_serve_cai.engines import registry
    from ray_serve_cai.node import discovery, machine, secret_files
    from ray_serve_cai.node.supervisor import DEPLOYED, Served, Supervisor, directories
    from ray_serve_cai.serving import deployed
    from ray_serve_cai.state import ModelState

    logs.set_up(_log_level(), "node")
    here, env = machine.inspect(), secret_files.read(os.environ)
    planned = discovery.plan(env, here)
    if planned.role == "idle":
        said = ", ".join(f"{name} is {value}" for name, value in planned.variables.items())
        logging.info("%s: the first process of this machine runs the node; this one has nothing to do", said)
        return 0
    served = None
    if planned.role != "worker":
        kept = directories(env)[1] / DEPLOYED
        given, engines = deployed.current(kept, config.from_environment(env), _builder(planned.drain_s))
        for engine in engines if planned.role == "single" else []:  # no other node can join it
            registry.check_installed(engine.info)
        served = Served(
            models=tuple(ModelState(engine.name, engine.engine) for engine in engines),
            sources=tuple(model.source for model, engine in zip(given.models, engines, strict=True) if engine.info.weights),
            max_body_mb=given.server.max_body_mb,
            spanning=tuple({engine.engine for engine in engines if engine.nodes > 1}),
        )
    return asyncio.run(Supervisor(planned, served, here, env, _installed_engines(), once=arguments.once).run())


def plan(arguments: argparse.Namespace) -> int:
    """Print the plan; the exit code is the one with which `node` would refuse it."""
    from ray_serve_cai.node import command, discovery, env_file, machine, secret_files, token

    env = env_file.read(arguments.env_file, os.environ) if arguments.env_file else secret_files.read(os.environ)
    token.given(env)
    planned = discovery.plan(env, machine.inspect())
    line = [] if planned.role == "idle" else command.ray_start(planned, _installed_engines(), planned.node_ip)
    document = json.loads(discovery.as_json(planned, line))
    refused = None
    if planned.role in ("head", "single"):
        document["models"], refused = _models(env, planned.drain_s)
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        for key, value in document.items():
            print(f"{key:15} {_shown(key, value)}")
    return refused.exit_code if refused else 0


def _shown(key: str, value: object) -> str:
    """A value of the plan as people read it."""
    if key == "models" and isinstance(value, list):
        return f"\n{'':15} ".join(value)
    if isinstance(value, list):
        return " ".join(value) or "nothing to start"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "none"
    return ("unknown before joining" if key == "node_ip" else "none") if value is None else str(value)


def _models(env: Mapping[str, str], drain_s: int) -> tuple[list[str], RayServeCaiError | None]:
    """What the head would serve, a line for each model and for what its configuration came to mean; or why it could not."""
    from ray_serve_cai import config
    from ray_serve_cai.serving import app

    try:
        given = config.from_environment(env)
        engines = _builder(drain_s)(given)
    except RayServeCaiError as error:
        return [f"error: {error}"], error
    return [f"{engine.name}: {engine.layout()}" for engine in engines] + app.notes(given, engines), None


def doctor(arguments: argparse.Namespace) -> int:
    """Print what the checks find; exit 0 where nothing keeps the node from serving."""
    from ray_serve_cai import config
    from ray_serve_cai.node import discovery, machine, manifest, secret_files
    from ray_serve_cai.node import doctor as node_doctor

    env, here = secret_files.read(os.environ), machine.inspect()
    planned = discovery.plan(env, here)

    def models() -> list[str]:
        given = config.from_environment(env)
        built = _builder(planned.drain_s)(given)
        return [model.source for model, engine in zip(given.models, built, strict=True) if engine.info.weights]

    node = node_doctor.Node(planned, env, here, manifest.read(), models, node_doctor.is_running())
    findings = []
    for found in node_doctor.examine(node, node_doctor.peer(arguments.peer) if arguments.peer else None):
        findings.append(found)
        if not arguments.json:
            print(
                f"{found.level:8} {found.check:11} {found.fact}" + (f"\n{'':8} {'':11} fix: {found.fix}" if found.fix else ""), flush=True
            )
    broken = [found for found in findings if found.level == "error"]
    if arguments.json:
        print(json.dumps([vars(found) for found in findings], indent=2))
    else:
        print(f"this node cannot serve: {', '.join(found.check for found in broken)}" if broken else "nothing keeps this node from serving")
    return ResourceError.exit_code if broken else 0


def health(arguments: argparse.Namespace) -> int:
    """Exit 0 if healthy."""
    from ray_serve_cai.node import health as node_health

    code, document = node_health.ask("/health" if arguments.live else "/ready")
    if arguments.json:
        print(json.dumps(document))
    elif arguments.live:
        print(f"{document['role']}: {document['phase']}: {document['phase_detail']}")
    else:
        print(f"{document['phase']}: {document['detail']}")
    return 0 if code == 200 else UnavailableError.exit_code


def status(arguments: argparse.Namespace) -> int:
    """Show the state, once or until it is ready."""
    from ray_serve_cai.node import health as node_health

    deadline = time.monotonic() + arguments.timeout
    said = ""
    while True:
        try:
            code, ready = node_health.ask("/ready")
            line = f"{ready['phase']}: {ready['detail']}"
        except UnavailableError as error:
            if not arguments.wait:
                raise
            code, line = 0, str(error)
        if not arguments.wait or code == 200:
            break
        if line.startswith(("failed: ", "refused: ")):
            raise EngineError(line.partition(": ")[2])
        if line != said:
            said = line
            print(line, flush=True)
        if time.monotonic() > deadline:
            raise UnavailableError(f"not ready after {arguments.timeout:.0f} s; last seen: {line}.")
        time.sleep(POLL_S)
    document = node_health.ask("/health")[1]
    if arguments.json:
        print(json.dumps(document, indent=2))
        return 0
    print(line)
    for model in document["models"]:
        said = f"; {model['error']}" if model["error"] else ""
        print(f"model {model['name']}: {model['state']}, {model['engine']}, {counted(model['replicas'], 'replica')}{said}")
    if document["role"] != "worker":  # which does not know the others
        print(f"nodes: {document['nodes']['alive']} alive, at least {document['nodes']['expected']} wanted")
    return 0


def serve(arguments: argparse.Namespace) -> int:
    """Apply the configuration and watch; the launcher's head runs this as a child."""
    from ray_serve_cai import config, logs
    from ray_serve_cai.node import command, discovery, machine
    from ray_serve_cai.serving import controller

    logs.set_up(_log_level(), "serve")
    given = config.load(arguments.config) if arguments.config else config.from_environment(os.environ)
    here = machine.inspect()
    planned = discovery.plan(os.environ, here)
    address = os.environ.get("RAY_ADDRESS") or str(command.gcs_address(planned, planned.node_ip or here.primary_ip()))
    settings = controller.ServeSettings(
        ray_address=address,
        min_nodes=planned.min_nodes,
        serve_port=planned.ports.serve_http,
        dashboard_port=planned.ports.dashboard,
        state_file=_state_file(),
        deployed_file=Path(os.environ.get("RSCAI_DEPLOYED_FILE") or _state_file().with_name("deployed.json")),
        alone=planned.role == "single",
        min_gpus=planned.min_gpus,
    )
    controller.run(given, _builder(planned.drain_s), settings)
    return 0


def _builder(drain_s: int) -> Callable[[Config], list[EngineConfig]]:
    """What makes the engines of a configuration, with what this image has as defaults."""
    from ray_serve_cai.node import manifest
    from ray_serve_cai.serving import app

    contents = manifest.read()
    return lambda wanted: app.engine_configs(wanted, default_engine=contents.engine, device=contents.device, drain_s=drain_s)


def _state_file() -> Path:
    return Path(os.environ.get("RSCAI_STATE_FILE") or "/tmp/ray-serve-cai/state.json")


def deploy(arguments: argparse.Namespace) -> int:
    """Hand the serving process a configuration, and show what becomes of it."""
    from ray_serve_cai import config
    from ray_serve_cai.serving import mailbox

    wanted: dict[str, object] = {}
    if arguments.config == "-":
        wanted = config.parse(config.read_yaml("/dev/stdin"), "standard input").model_dump(exclude_unset=True)
    elif arguments.config:
        wanted = config.load(arguments.config).model_dump(exclude_unset=True)
    directory = next((file.parent for file in (_state_file(), Path(f"/tmp/ray-serve-cai-{os.getuid()}/state.json")) if file.exists()), None)
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


def engines(arguments: argparse.Namespace) -> int:
    """List what is registered."""
    from ray_serve_cai.engines.registry import get_registry

    registry = get_registry()
    rows = [
        {
            "name": name,
            "description": registry.get(name).description,
            "installed": registry.installed_version(name),
            "install": registry.get(name).install,
            "default": name == registry.get_default_engine(),
            "error": "",
        }
        for name in registry.list_engines()
    ]
    rows += [
        {"name": name, "description": "", "installed": None, "install": "", "default": False, "error": error}
        for name, error in sorted(registry.broken().items())
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        state = f"installed, {row['installed']}" if row["installed"] else f"not installed; {row['install']}"
        mark = " [default]" if row["default"] else ""
        said = f"broken: {row['error']}" if row["error"] else f"{row['description']} ({state}){mark}"
        print(f"{row['name']:12} {said}")
    return 0


def _installed_engines() -> list[str]:
    from ray_serve_cai.engines.registry import get_registry

    return get_registry().installed()


def _log_level() -> str:
    from ray_serve_cai.node.environment import choice

    return choice(os.environ, "RSCAI_LOG_LEVEL", ("debug", "info", "warning", "error"), "info")


if __name__ == "__main__":
    sys.exit(main())
