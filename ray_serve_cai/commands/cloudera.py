"""Clusters on Cloudera AI: the commands below ``ray-serve-cai cai``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from ray_serve_cai.commands import common
from ray_serve_cai.errors import PlatformAccessError, PlatformRefusedError, RayServeCaiError, UnavailableError, UsageError, counted

if TYPE_CHECKING:
    from ray_serve_cai.cai.client import Client
    from ray_serve_cai.cai.cluster import Cluster, Status
    from ray_serve_cai.cai.config import CaiFile
    from ray_serve_cai.cai.settings import Settings


def plan(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    try:
        with _cluster(arguments) as (cluster, wanted, env):
            made = cluster.plan(wanted, env)
    except RayServeCaiError as error:
        if arguments.json:
            print(json.dumps({"error": str(error)}, indent=2))
        raise
    if arguments.json:
        print(json.dumps(made.as_dict(), indent=2))
    else:
        print(made)
    return 0


def up(arguments: argparse.Namespace) -> int:
    """Plan, apply, wait."""
    with _cluster(arguments) as (cluster, wanted, env):
        _bring(arguments, cluster, wanted, env)
    return 0


def _bring(arguments: argparse.Namespace, cluster: Cluster, wanted: CaiFile, env: Mapping[str, str]) -> None:
    made = cluster.plan(wanted, env)
    _say(str(made))
    try:
        reached = cluster.up(wanted, made, arguments.timeout)
    except KeyboardInterrupt:
        _say("interrupted: what was begun goes on; the same command takes it from here, and `ray-serve-cai cai down` removes it")
        raise
    _show(arguments, reached)


def status(arguments: argparse.Namespace) -> int:
    """Show what is there; exit 0 where the models answer, or where only the platform's users may see whether they do."""
    from ray_serve_cai.cai import front

    with _cluster(arguments) as (cluster, wanted, _):
        asks = wanted.cai.authentication == "platform"
        found = cluster.status(wanted.cai.name, platform_asks=asks, told=front.told_in(wanted.cai))
    if found.applications and len(found.applications) != (there := len(list(wanted.cai.applications()))):
        _say(f"the file has {counted(there, 'application')}, and there are {len(found.applications)}; `up` brings them to the file's")
    if not found.applications:
        if arguments.json:
            print(json.dumps(found.as_dict(), indent=2))
        raise UnavailableError(f"there is no cluster {found.name!r} in the project; ray-serve-cai cai up -f {arguments.file} makes it.")
    _show(arguments, found)
    return UnavailableError.exit_code if found.ready is False else 0


def scale(arguments: argparse.Namespace) -> int:
    """Apply the file with other counts."""
    from ray_serve_cai.cai.scale import scaled

    changes = dict(_count(word) for word in arguments.groups)
    if len(changes) != len(arguments.groups):
        raise UsageError(f"a group is named twice in {' '.join(arguments.groups)!r}; name each once.")
    with _cluster(arguments) as (cluster, wanted, env):
        changes = cluster.counts(wanted) | changes  # groups that are not named stay as they are
        other = {name: count for name, count in changes.items() if name in wanted.cai.workers and wanted.cai.workers[name].count != count}
        _bring(arguments, cluster, scaled(wanted, changes), env)
    for name in other:
        _say(f"the file still says {wanted.cai.workers[name].count} for {name!r}; change it there, or the next `up` goes back to that")
    return 0


def _count(word: str) -> tuple[str, int]:
    name, equals, number = word.partition("=")
    if not (name and equals and number.isascii() and number.isdigit() and int(number) <= 500):
        raise UsageError(f"{word!r} is no count of workers; use GROUP=N with N from 0 to 500, for example gpu=3.")
    return name, int(number)


def down(arguments: argparse.Namespace) -> int:
    """Delete, and see that all is gone."""
    with _cluster(arguments) as (cluster, wanted, _):
        count = cluster.down(wanted.cai.name, arguments.timeout)
    said = f"{counted(count, 'application')} deleted" if count else "there was nothing"
    print(json.dumps({"name": wanted.cai.name, "deleted": count}) if arguments.json else f"{wanted.cai.name}: {said}")
    return 0


def node_logs(arguments: argparse.Namespace) -> int:
    """Print the files that nodes write into the project, where the project's files are here."""
    from ray_serve_cai.cai import config, node_log

    wanted = config.load(arguments.file)
    directory = node_log.directory(wanted.cai)
    nodes = list(dict.fromkeys([*wanted.cai.applications(), *node_log.names(directory)]))
    names = [name for name in nodes if arguments.node in (None, name, name.removeprefix(f"{wanted.cai.name}-"))]
    if not names:
        known = ", ".join(nodes)
        raise UsageError(f"there is no node {arguments.node!r}; its nodes are: {known}.")
    if not directory.is_dir():
        raise UnavailableError(
            f"{directory} is not here: nodes write into the project's files, and the platform's API does not give them out. "
            f"Run this in a session of the project, or open the application's log in the workspace: {', '.join(names)}."
        )
    for name in names:
        for line in node_log.tail(directory, name, arguments.tail):
            print(f"{name}: {line}" if len(names) > 1 else line)
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Print what the checks find; exit 0 where nothing keeps the cluster from coming up."""
    from ray_serve_cai.cai import config
    from ray_serve_cai.cai import doctor as cai_doctor

    wanted = config.load(arguments.file)
    with _client(arguments, wanted) as (client, _, env):
        findings = cai_doctor.examine(client, wanted, env)
        well = "nothing seen keeps this cluster from coming up"
        return common.tell(findings, as_json=arguments.json, well=well, broken="this cluster cannot come up")


def register_runtime(arguments: argparse.Namespace) -> int:
    """Validate and register, or print the file for an administrator."""
    if not arguments.image.strip():
        raise UsageError("the image's address is empty; give it as the workspace reaches it.")
    if arguments.repo_file:
        print(json.dumps(_repository(arguments.image), indent=2))
        return 0
    with _client(arguments) as (client, settings, _):
        try:
            checked = client.validate_runtime(arguments.image)
            if not checked.validation_success:
                said = checked.reason or "it does not say why"
                raise PlatformRefusedError(
                    f"{settings.host} does not take {arguments.image} as a runtime: {said}. "
                    "Does the workspace reach the registry, and is it an image with -cai?"
                )
            made = client.register_runtime(arguments.image, arguments.credential)
        except PlatformAccessError as error:
            raise PlatformAccessError(
                f"{error} Give an administrator the address, for Runtime Catalog, Add Runtime; or the file that "
                f"`ray-serve-cai cai register-runtime {arguments.image} --repo-file` prints, for Site Administration, Runtime Updates."
            ) from error
        if not made.insert_success and not _registered(client, arguments.image):
            raise PlatformRefusedError(f"{settings.host} did not add {arguments.image}: {made.reason or 'it does not say why'}.")
    new = made.insert_success
    if arguments.json:
        print(json.dumps({"image": arguments.image, "new": new}))
    else:
        where = "is in the catalog now" if new else "was in the catalog already"
        print(f"{arguments.image} {where}; in the file: cai.runtime: {arguments.image}")
    return 0


def _registered(client: Client, image: str) -> bool:
    return any(one.image_identifier == image for one in client.runtimes())


def _repository(image: str) -> dict[str, object]:
    from ray_serve_cai.cai import catalog
    from ray_serve_cai.upgrade import docker

    done = docker.attempt("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    if done.returncode:
        raise UsageError(f"the image {image} is not here: {docker.last_line(done.stderr)}; pull it, or give the name it has here.")
    return catalog.repository(image, json.loads(done.stdout) or {})


def node(arguments: argparse.Namespace) -> int:
    """Run the application until it is told to stop."""
    import asyncio

    from ray_serve_cai import logs
    from ray_serve_cai.cai import node_log
    from ray_serve_cai.cai.on_node import Application, place
    from ray_serve_cai.node import secret_files

    env = secret_files.read(os.environ)
    here = place(env)
    logs.set_up(common.log_level(env), "application", common.log_format(env))
    logs.speak_as(here.role)
    node_log.keep(here.directory, here.cluster, env)
    return asyncio.run(Application(env).run())


def _show(arguments: argparse.Namespace, found: Status) -> None:
    """A cluster, for people or for scripts."""
    if arguments.json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    for one in found.applications:
        gpus = f", {counted(one.nvidia_gpu, 'GPU')}" if one.nvidia_gpu else ""
        print(f"{one.name:30} {one.status.word:9} {one.cpu:g} CPU, {one.memory:g} GB{gpus}")
    if found.seen:
        joined = f"; {found.seen.nodes} of {counted(found.expected, 'node')}" if found.seen.document else ""
        print(f"{found.seen.line}{joined}")
        models = ", ".join(found.seen.models)
        print(f"{found.url}/v1" + (f" serves {models}" if models else ""))


@contextmanager
def _cluster(arguments: argparse.Namespace) -> Iterator[tuple[Cluster, CaiFile, Mapping[str, str]]]:
    from ray_serve_cai.cai import config
    from ray_serve_cai.cai.cluster import Cluster

    wanted = config.load(arguments.file)
    with _client(arguments, wanted) as (client, settings, env):
        yield Cluster(client, settings, _say), wanted, env


def _client(
    arguments: argparse.Namespace, wanted: CaiFile | None = None
) -> AbstractContextManager[tuple[Client, Settings, Mapping[str, str]]]:
    from ray_serve_cai.cai import cluster

    return cluster.opened(wanted, {"host": arguments.host, "project_id": arguments.project}, os.environ, _say)


def _say(line: str) -> None:
    """Progress; that nobody reads it ends nothing."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
