"""``ray.serve.llm`` with `build_openai_app`, as its quickstart has it, with the benchmark's engine arguments. Runs in the bench image only.

What is not default: a CPU in place of a GPU, the listen address, and the number of CPUs that Ray may reserve.
"""

from __future__ import annotations

import json
import os

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app


def main() -> None:
    # Ray counts the machine's cores as what may be reserved; engine, ingress and start-up tasks reserve more than a small machine has.
    ray.init(num_cpus=8, include_dashboard=False)
    model = LLMConfig(
        model_loading_config={"model_id": "demo", "model_source": "/opt/ray-serve-cai/models/demo"},
        accelerator_config={"kind": "cpu"},
        placement_group_config={"bundles": [{"CPU": 1}]},
        engine_kwargs=json.loads(os.environ["BENCH_ENGINE_ARGS"]),
    )
    serve.start(http_options={"host": "0.0.0.0", "port": 8000})
    serve.run(build_openai_app({"llm_configs": [model]}), blocking=True)


if __name__ == "__main__":
    main()
