"""What code written for the predecessor's module does, in its usual order. Only the import differs.

It runs inside the image with the entrypoint bypassed. Its last line is a JSON object: what every call returned.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from ray_serve_cai import ray_backend
from ray_serve_cai.engines import get_registry

SECRET = "hf_" + "s3cret" * 5
CONFIG = {
    "model": "demo",
    "engine": "vllm",
    "tensor_parallel_size": 1,
    "use_cpu": True,
    "port": 8000,
    "dtype": "auto",
    "gpu_memory_utilization": 0.9,
    "max_model_len": 512,
    "trust_remote_code": False,
    "load_format": "auto",
    "hf_token": SECRET,
    "enable_prefix_caching": True,
    "disable_log_stats": False,
    "custom_chat_template": "",
}


def call(path: str, body: object = None) -> tuple[int, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:8000{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Seen(dict):  # type: ignore[type-arg]
    """Says each result as it comes, too."""

    def __setitem__(self, key: str, value: object) -> None:
        super().__setitem__(key, value)
        print(key, str(value)[:300], file=sys.stderr, flush=True)


def ancestry(pid: str) -> list[str]:
    """Names of a process and of those that started it."""
    names = []
    while pid != "0":
        name, _, rest = (Path("/proc") / pid / "stat").read_text().rpartition(")")
        names.append(name.partition("(")[2])
        pid = rest.split()[1]
    return names


def who_knows_the_secret() -> dict[str, list[str]]:
    """Log files that hold the token, and processes, with their ancestors, that have it in their environment."""
    logs = subprocess.run(["grep", "-rlF", SECRET, "/tmp/ray"], capture_output=True, text=True, check=False).stdout.split()
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if SECRET.encode() in (folder / "environ").read_bytes():
                processes.append(" < ".join(ancestry(folder.name)))
        except OSError:
            continue
    return {"logs": logs, "processes": processes, "here": [name for name, value in os.environ.items() if SECRET in value]}


async def main() -> None:
    seen: dict[str, object] = Seen()
    seen["engines"] = get_registry().list_engines()
    seen["initialize_ray"] = await ray_backend.initialize_ray()
    seen["again"] = await ray_backend.initialize_ray(address=None)
    seen["before"] = await ray_backend.get_status()
    seen["bad_engine"] = await ray_backend.start_model(CONFIG, engine="vlm")
    seen["bad_key"] = await ray_backend.start_model(CONFIG | {"dtype": "int4"})
    seen["bad_argument"] = await ray_backend.start_model(CONFIG | {"engine_args": {"max_num_sequences": 4}})
    seen["bad_path"] = await ray_backend.start_model(CONFIG | {"model_source": "/no/such/model"})
    started = time.monotonic()
    seen["start_model"] = await ray_backend.start_model(CONFIG, wait_ready=True)
    seen["start_seconds"] = round(time.monotonic() - started, 1)
    seen["wait_for_ready"] = await ray_backend.wait_for_ready(port=8000, timeout=60)
    seen["status"] = await ray_backend.get_status()
    seen["health"] = call("/health")
    seen["models"] = call("/v1/models")
    seen["chat"] = call("/v1/chat/completions", {"model": "demo", "messages": [{"role": "user", "content": sys.argv[1]}]})
    seen["other"] = call("/v1/completions", {"model": "other", "prompt": "a"})
    seen["secret"] = who_knows_the_secret()
    seen["logs"] = [line async for line in ray_backend.get_logs(tail=50)]
    seen["stop_model"] = await ray_backend.stop_model()
    seen["after"] = await ray_backend.get_status()
    seen["stop_again"] = await ray_backend.stop_model()
    await ray_backend.shutdown()
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main())
    ray_backend.close()
