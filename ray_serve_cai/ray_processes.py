"""The processes of one Ray cluster on this machine. ``ray stop`` would end those of every cluster, in containers too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

import psutil


def end(address: str, grace_s: float) -> int:
    """End the processes of the cluster at ``address`` that run on this machine, SIGKILL after the grace; how many there were."""
    found = _with_children(of_cluster(address, psutil.process_iter()))
    for process in found:
        _quietly(process.terminate)
    _, left = psutil.wait_procs(found, timeout=grace_s)
    for process in left:
        _quietly(process.kill)
    psutil.wait_procs(left, timeout=grace_s)
    return len(found)


def of_cluster(address: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those whose command line names this GCS, or the session of one that does; processes of other mount namespaces are others'.

    Ray's daemons have ``--gcs-address=HOST:PORT``; the GCS itself has the port and, as all have, the directory of its session.
    """
    lines = {process: line for process in processes if _same_namespace(process) and (line := _command(process))}
    members = {process for process, line in lines.items() if f"--gcs-address={address}" in line or f"--gcs_address={address}" in line}
    sessions = {word for process in members for word in _sessions(lines[process])}
    members |= {process for process, line in lines.items() if sessions & set(_sessions(line))}
    return [process for process in members if process.pid != os.getpid()]


def _sessions(line: str) -> list[str]:
    """Names of Ray's session directories in a command line: session_DATE_TIME_NUMBER_PID."""
    parts = line.replace("=", "/").replace(" ", "/").split("/")
    return [part for part in parts if part.startswith("session_2")]


def _with_children(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = dict.fromkeys(processes)
    for process in processes:
        try:
            found |= dict.fromkeys(process.children(recursive=True))
        except psutil.Error:
            continue
    return list(found)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _same_namespace(process: psutil.Process) -> bool:
    try:
        return os.stat(f"/proc/{process.pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return False


def _quietly(action: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.Error):
        action()
