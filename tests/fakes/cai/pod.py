"""PID 1 of an emulated application, inside the image: what the platform's own engine does around a script.

Starts the runtime's Jupyter kernel gateway, feeds the script cell by cell to a kernel [doc: PBJ runtimes], prints what the cells print,
and ends when the script ends [doc]. The image's entrypoint is not run [doc]. Only 127.0.0.1:$CDSW_APP_PORT is published [doc]: a forwarder on
another port stands for the platform's proxy. A stop is abrupt [assumed].

usage: python pod.py SCRIPT PORT
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shlex
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

GATEWAY = "127.0.0.1:8888"


def cells(script: str) -> list[str]:
    """One cell for each statement at the top level."""
    lines = script.splitlines(keepends=True)
    return ["".join(lines[node.lineno - 1 : node.end_lineno]) for node in ast.parse(script).body]


async def _ask(method: str, path: str, token: str, body: Any = None) -> Any:
    from tornado.httpclient import AsyncHTTPClient, HTTPRequest  # the image has it; those who only want `cells` may not

    headers = {"Authorization": f"token {token}"}
    request = HTTPRequest(f"http://{GATEWAY}{path}", method, headers, json.dumps(body) if body is not None else None)
    return json.loads((await AsyncHTTPClient().fetch(request)).body)


async def _kernel(token: str) -> str:
    from tornado.httpclient import HTTPError

    for _ in range(240):
        try:
            made = await _ask("POST", "/api/kernels", token, {"name": os.environ["ML_RUNTIME_JUPYTER_KERNEL_NAME"]})
            return str(made["id"])
        except (OSError, HTTPError):
            await asyncio.sleep(0.25)
    raise SystemExit("the kernel gateway does not answer")


async def run(script: str, token: str) -> int:
    """Feed the cells; 1 where one raises."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    kernel = await _kernel(token)
    headers = {"Authorization": f"token {token}"}
    socket = await websocket_connect(
        HTTPRequest(f"ws://{GATEWAY}/api/kernels/{kernel}/channels", headers=headers), max_message_size=1 << 30
    )
    for cell in cells(script):
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": "pod", "msg_type": "execute_request", "version": "5.3"}
        content = {"code": cell, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        await socket.write_message(json.dumps(message))
        while True:
            told = await socket.read_message()
            if told is None:
                print("the kernel is gone", flush=True)
                return 1
            answer = json.loads(told)
            if answer["msg_type"] == "stream":
                print(answer["content"]["text"], end="", flush=True)
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if answer["msg_type"] == "error":
                print("\n".join(answer["content"]["traceback"]), flush=True)
                return 1
            if answer["msg_type"] == "execute_reply":
                break
    return 0


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def copy(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(1 << 16):
                into.write(chunk)
                await into.drain()
            into.write_eof()
        except OSError:
            into.close()

    try:
        back, forth = await asyncio.open_connection("127.0.0.1", int(os.environ["CDSW_APP_PORT"]))
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, forth), copy(back, writer))
    for one in (writer, forth):
        one.close()


def start_gateway(token: str) -> None:
    """As the platform does: the runtime's own command."""
    gateway = shlex.split(os.environ["ML_RUNTIME_JUPYTER_KERNEL_GATEWAY_CMD"])
    host, _, port = GATEWAY.partition(":")
    settings = [f"--KernelGatewayApp.ip={host}", f"--KernelGatewayApp.port={port}"]
    with open("/tmp/gateway.log", "w") as log:
        subprocess.Popen([*gateway, *settings], env=os.environ | {"KG_AUTH_TOKEN": token}, stdout=log, stderr=log)


async def main(script: str, port: int, token: str) -> int:
    await asyncio.start_server(_forward, "0.0.0.0", port)
    return await run(script, token)


if __name__ == "__main__":
    one_time = uuid.uuid4().hex
    start_gateway(one_time)
    os._exit(asyncio.run(main(Path(sys.argv[1]).read_text(), int(sys.argv[2]), one_time)))
