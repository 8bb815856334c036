"""One log format for every process of ours: to stderr, with the component that speaks."""

from __future__ import annotations

import logging
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
