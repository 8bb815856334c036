"""``ray-serve-cai``: the command line. What a command does stands in `ray_serve_cai.commands`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ray_serve_cai import logs
from ray_serve_cai.commands import cloudera_options, launcher, serving, watching
from ray_serve_cai.errors import RayServeCaiError, UsageError


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
            print(logs.last_words(str(error)), file=sys.stderr, flush=True)
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
        self.exit(UsageError.exit_code, f"{logs.ERROR}{message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ray-serve-cai", description="Serve large language models from a cluster of containers.")
    parser.add_argument("--version", action=_Version)
    command = _commands(parser)
    made = command(
        "node",
        launcher.node,
        "Run this container's part of the cluster; its role comes from the environment.",
        "RSCAI_ROLE=head ray-serve-cai node",
    )
    made.add_argument(
        "--once", action="store_true", help="leave when the head refuses this node (default: say so, and try again every minute)"
    )
    made = command(
        "plan", launcher.plan, "Show what `node` would do, and start nothing.", "ray-serve-cai plan --json --env-file worker.env"
    )
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made.add_argument(
        "--env-file", type=Path, metavar="F", help="plan for the environment in this file (Docker's format; - is standard input)"
    )
    made = command(
        "doctor", launcher.doctor, "Look for what would keep this node from serving, each with its fix.", "ray-serve-cai doctor --peer head"
    )
    made.add_argument("--peer", metavar="HOST", help="also look at the way to this node (default: a worker's head)")
    made.add_argument("--json", action="store_true", help="print a list for scripts")
    made = command("health", watching.health, "Ask this node's launcher; exit 0 if the node does its work.", "ray-serve-cai health --live")
    made.add_argument("--live", action="store_true", help="only ask whether the launcher answers")
    made.add_argument("--json", action="store_true", help="print the answer as an object")
    made = command(
        "status",
        watching.status,
        "Show phase, models and nodes, as this node's launcher sees them.",
        "ray-serve-cai status --wait --timeout 300",
    )
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made.add_argument("--wait", action="store_true", help="show each phase until the node is ready")
    made.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds to wait (default: %(default)s)")
    _serving(command)
    made = command("key", launcher.key, "Make an API key, and its entry for the file of keys.", "ray-serve-cai key alice >> keys.yaml")
    made.add_argument("name", metavar="NAME", help="stands in logs in place of the key")
    made.add_argument("--admin", action="store_true", help="for a key that may also change and watch the cluster")
    made.add_argument("--models", metavar="A,B", help="models that it may ask (default: all)")
    made.add_argument("--requests-per-minute", type=int, metavar="N", help="at most (default: no limit)")
    made.add_argument("--concurrent", type=int, metavar="N", help="requests at a time (default: no limit)")
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made = command("engines", watching.engines, "List the engines, and which are installed here.", "ray-serve-cai engines --json")
    made.add_argument("--json", action="store_true", help="print a list for scripts")
    summary = "Bring up clusters of applications on Cloudera AI, and look at them."
    cloudera_options.parsers(_commands(command("cai", None, summary, f"ray-serve-cai cai up -f {cloudera_options.FILE}")))
    return parser


def _serving(command: cloudera_options.Command) -> None:
    """The commands for what is served."""
    made = command(
        "serve",
        serving.serve,
        "Apply a configuration to the running cluster and watch it.",
        "ray-serve-cai serve --config configs/local_cpu.yaml",
    )
    made.add_argument("--config", type=Path, metavar="F", help="YAML file (default: RSCAI_CONFIG, or RSCAI_MODEL and its companions)")
    made = command(
        "gateway",
        serving.gateway,
        "Find the model that a request names where the front door cannot; the head runs this where it serves several models.",
        "ray-serve-cai gateway --socket gateway.sock --models models.sock --state-file state.json --max-body-mb 32",
    )
    made.add_argument("--socket", type=Path, required=True, metavar="F", help="where to listen, a path")
    made.add_argument("--models", type=Path, required=True, metavar="F", help="the socket at which each model is below its own path")
    made.add_argument("--state-file", type=Path, required=True, metavar="F", help="what the serving process writes: the models' names")
    made.add_argument("--max-body-mb", type=int, required=True, metavar="N", help="largest request body, MiB")
    made = command(
        "deploy",
        serving.deploy,
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
        "fetch",
        serving.fetch,
        "Download a model of the Hugging Face hub once, into the cache that nodes share, and verify it.",
        "docker compose -f compose/cpu.yaml run --rm fetch Qwen/Qwen3-0.6B\n  HF_HOME=/shared/hf ray-serve-cai fetch Qwen/Qwen3-0.6B",
    )
    made.add_argument("model", metavar="MODEL", help="an id of the hub; a shipped name or a path needs no fetching, and is left alone")
    made.add_argument("--revision", default="main", metavar="R", help="a branch, a tag or a commit (default: %(default)s)")
    made.add_argument("--verify", action="store_true", help="hash also the files that are there already (default: look at their sizes)")
    made.add_argument("--json", action="store_true", help="print an object for scripts")
    made = command(
        "upgrade",
        serving.upgrade,
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


def _commands(parser: argparse.ArgumentParser) -> cloudera_options.Command:
    """What adds commands to a parser."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: cloudera_options.Run | None, summary: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if run:
            made.set_defaults(run=run)
        return made

    return command


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ray_serve_cai import __version__

        print(f"ray-serve-cai {__version__}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
