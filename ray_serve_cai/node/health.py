"""Asking the node's own status server, for HEALTHCHECK and for people. Imports no Ray and no HTTP library beyond the standard one."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any

from ray_serve_cai.errors import UnavailableError
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.environment import integer
from ray_serve_cai.node.ports import Ports

TIMEOUT_S = 3.0


def ask(path: str, port: int | None = None, host: str = "127.0.0.1") -> tuple[int, dict[str, Any]]:
    """Status code and JSON of one of the status server's documents.

    Raises:
        UnavailableError: no launcher listens on this node, or what answers is none.
    """
    port = port or integer(os.environ, "RSCAI_STATUS_PORT", low=1, high=65535) or Ports.status
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, document = answer.status, dict(json.loads(answer.read()))
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        raise UnavailableError(f"no launcher answers on {Address(host, port)} ({error}); start one with `ray-serve-cai node`.") from error
    finally:
        connection.close()
    if "phase" not in document:
        raise UnavailableError(
            f"what answers on {Address(host, port)} is no launcher; stop it, or set RSCAI_STATUS_PORT to another port on all nodes."
        )
    return status, document
