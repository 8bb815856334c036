"""Start the demo model on this machine's CPUs, ask it one question, stop it."""

import asyncio

import httpx

from ray_serve_cai import ray_backend

CONFIG = {"model": "demo", "engine": "vllm", "use_cpu": True, "max_model_len": 512, "port": 8000}
QUESTION = "What is ray-serve-cai?"


async def main() -> None:
    started = await ray_backend.start_model(CONFIG, wait_ready=True)
    try:
        if not started.get("ready"):
            raise SystemExit(started.get("message") or started["last_error"])
        url = f"http://127.0.0.1:{started['port']}/v1/chat/completions"
        body = {"model": started["model"], "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
        async with httpx.AsyncClient(timeout=120) as client:
            answer = (await client.post(url, json=body)).raise_for_status().json()
        print(answer["choices"][0]["message"]["content"])
        print((await ray_backend.stop_model())["status"])
    finally:
        await ray_backend.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
