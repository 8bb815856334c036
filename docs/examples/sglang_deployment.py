"""Serve the demo model with SGLang: arguments of its own, an answer as it is written, and one in SGLang's native form."""

import asyncio
import json

import httpx

from ray_serve_cai import ray_backend

CONFIG = {
    "model": "demo",
    "engine": "sglang",
    "use_cpu": True,
    "max_model_len": 512,  # a key of every engine; here it becomes SGLang's context_length
    "engine_args": {"schedule_policy": "lpm", "constrained_json_disable_any_whitespace": True},
    "port": 8000,
}
QUESTION = "What is ray-serve-cai?"


async def main() -> None:
    started = await ray_backend.start_model(CONFIG, wait_ready=True)
    try:
        if not started.get("ready"):
            raise SystemExit(started.get("message") or started["last_error"])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{started['port']}", timeout=120) as client:
            await stream(client)
            await native(client)
    finally:
        await ray_backend.shutdown()


async def stream(client: httpx.AsyncClient) -> None:
    """OpenAI's form: print the answer while it is written."""
    body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                print(json.loads(line[6:])["choices"][0]["delta"].get("content") or "", end="", flush=True)
    print()


async def native(client: httpx.AsyncClient) -> None:
    """SGLang's form: a text is continued, and the answer must fit a pattern."""
    body = {"text": "Is it ready?", "sampling_params": {"temperature": 0, "max_new_tokens": 8, "regex": "(yes|no)"}}
    answer = (await client.post("/generate", json=body)).raise_for_status().json()
    print(answer["text"] in ("yes", "no"), answer["meta_info"]["finish_reason"]["type"])


if __name__ == "__main__":
    asyncio.run(main())
