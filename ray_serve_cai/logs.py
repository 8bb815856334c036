"""One log format for every process of ours: to stderr, with the component that speaks."""

from __future__ import annotations

import logging
import logging.handlers
import time


def set_up(level: str, component: str) -> None:
    """Send all log records of this process to stderr; called by the CLI, once."""
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {component}: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "aiohttp.access"):
        logging.getLogger(chatty).setLevel("WARNING")


def outlive_configuration(logger: logging.Logger) -> None:
    """Let the buffers of a logger write on when somebody configures logging anew.

    ``logging.config.dictConfig``, which vLLM calls when it is imported, closes all handlers of the process. A file opens again at
    its next record, but a closed `MemoryHandler` has no target any more: Ray Serve's log file ends, and since the buffer
    is emptied only into a target, it keeps every record from then on.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.handlers.MemoryHandler):
            handler.close = handler.flush  # type: ignore[method-assign]
