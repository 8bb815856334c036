"""A shard's process: python -m ray_serve_cai.engines.shard, with an `EngineConfig` as one line of JSON on its standard input.

It leaves a guardian, which starts the engine as a child in a process group of its own, writes its own number and the group's as its
first line, and ends the group when its input ends, which is when whoever started it dies, or when the engine's process does. A rank
that is not the first would not notice that the first one died. The guardian is nobody's child, since Ray kills the children of an actor
that it ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys

from ray_serve_cai.engines.leftovers import end_group

_PDEATHSIG = 1
"""PR_SET_PDEATHSIG, linux/prctl.h."""


def main() -> None:
    """Keep the engine, in a process that nobody finds among the children of who started this one."""
    if os.fork():
        os._exit(0)
    os.setsid()
    config = sys.stdin.buffer.readline()
    command = [sys.executable, "-m", "ray_serve_cai.engines.shard", "engine"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    print(os.getpid(), child.pid, flush=True)
    if child.stdin:
        child.stdin.write(config)
        child.stdin.close()
    ended = os.pidfd_open(child.pid)
    select.select([sys.stdin.buffer, ended], [], [])
    end_group(child.pid)


def engine() -> None:
    """Run the engine's ranks of this node until they end; die with the process that started this one."""
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL)
    from ray_serve_cai import logs
    from ray_serve_cai.engines import sealed
    from ray_serve_cai.engines.base import SpansNodes
    from ray_serve_cai.engines.engine_config import EngineConfig
    from ray_serve_cai.engines.registry import engine_class
    from ray_serve_cai.errors import ConfigError

    config = EngineConfig.model_validate_json(sys.stdin.buffer.readline())
    logs.hide(sealed.values(config))
    made = engine_class(config.info)
    if not issubclass(made, SpansNodes):
        raise ConfigError(f"engine {config.engine!r} runs on one node only; set nodes_per_replica to 1.")
    made.run_shard(config)


if __name__ == "__main__":
    if sys.argv[1:] == ["engine"]:
        engine()
    else:
        main()
