"""Data parallelism for real: a tiny random mixture of experts in vLLM's own mode, and a dense model, whose copies become replicas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import IMAGE, Node, run, until

pytestmark = [pytest.mark.issue(5), pytest.mark.full]
PYTHON = "/opt/ray-serve-cai/venv/bin/python"
COMMUNICATOR = "/opt/ray-serve-cai/venv/lib/python3.11/site-packages/vllm/distributed/device_communicators/cpu_communicator.py"
_MAKE = """
import pathlib, shutil, torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

torch.manual_seed(0)
experts = dict(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True, moe_intermediate_size=64)
heads = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=64)
tokens = dict(vocab_size=768, bos_token_id=None, eos_token_id=1, pad_token_id=0, max_position_embeddings=2048, tie_word_embeddings=True)
config = Qwen3MoeConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, dtype="bfloat16", **experts, **heads, **tokens)
Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained("/made")
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(f"/opt/ray-serve-cai/models/demo/{name}", f"/made/{name}")
for file in pathlib.Path("/made").iterdir():
    file.chmod(0o644)
"""
_COLLECTIVES = """

def _every(self, tensor, sizes):
    counts = sizes or [tensor.shape[0]] * self.world_size
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    whole = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(whole, padded, group=self.device_group)
    return torch.cat([part[:count] for part, count in zip(whole, counts)])


def _all_gatherv(self, input_, dim=0, sizes=None):
    return [_every(self, one, sizes) for one in input_] if isinstance(input_, list) else _every(self, input_, sizes)


def _reduce_scatterv(self, input_, dim=-1, sizes=None):
    whole = input_.contiguous().clone()
    torch.distributed.all_reduce(whole, group=self.device_group)
    counts = sizes or [whole.shape[0] // self.world_size] * self.world_size
    return whole[sum(counts[: self.rank_in_group]) :][: counts[self.rank_in_group]]


CpuCommunicator.all_gatherv, CpuCommunicator.reduce_scatterv = _all_gatherv, _reduce_scatterv
"""
"""What a mixture of experts exchanges between data-parallel ranks, and vLLM 0.32 has for GPUs only; it makes that testable here."""


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the model, and vLLM's module with the collectives that it lacks."""
    folder = tmp_path_factory.mktemp("mixture")
    made = folder / "model"
    made.mkdir(mode=0o777)
    made.chmod(0o777)
    folder.chmod(0o755)
    run("docker", "run", "--rm", "-v", f"{made}:/made", "--entrypoint", PYTHON, IMAGE, "-c", _MAKE)
    module = run("docker", "run", "--rm", "--entrypoint", "cat", IMAGE, COMMUNICATOR).stdout
    (folder / "communicator.py").write_text(module + _COLLECTIVES)
    yield folder
    run("docker", "run", "--rm", "-v", f"{made}:/made", "--entrypoint", "find", IMAGE, "/made", "-type", "f", "-delete")


def node_of(folder: Path, model: dict[str, Any], *mounts: tuple[str, str, str], **env: str) -> Node:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"models": [{"name": "m"} | model]}))
    file.chmod(0o644)
    return Node(env={"RSCAI_CONFIG": "/config.yaml"} | env, volumes=[(str(file), "/config.yaml", "ro"), *mounts], shm_size="1g")


def test_a_mixture_of_experts_in_vllms_own_mode(mixture: Path) -> None:
    """Both data-parallel ranks answer, each with a GPU as Ray counts them, of which the CPU build takes no notice."""
    arguments = {"data_parallel_size": 2, "max_model_len": 512, "dtype": "bfloat16", "enforce_eager": True}
    model = {"source": "/models/moe", "device": "cuda", "engine_args": arguments}
    mounts = (str(mixture / "model"), "/models/moe", "ro"), (str(mixture / "communicator.py"), COMMUNICATOR, "ro")
    with node_of(mixture, model, *mounts, RSCAI_NUM_GPUS="2") as node:
        node.api.wait_ready()
        body = {"model": "m", "prompt": "Hello", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        answers = [node.api.post("/v1/completions", body) for _ in range(16)]
        assert [answer.status_code for answer in answers] == [200] * 16
        assert {answer.json()["usage"]["completion_tokens"] for answer in answers} == {8}
        listed = node.exec("ps", "-eo", "args=").stdout
        assert [len(re.findall(name, listed)) for name in ("ServeReplica", "VLLM::EngineCore_DP0", "VLLM::EngineCore_DP1")] == [1, 1, 1]
        metrics = node.api.get("/metrics").text
        done = re.findall(r'vllm:request_success_total{engine="(\d)",finished_reason="length".*} (\S+)', metrics)
        assert len([engine for engine, count in done if float(count) > 0]) == 2, done


def test_a_mixture_of_experts_on_cpus_is_refused_at_once(mixture: Path) -> None:
    model = {"source": "/models/moe", "engine_args": {"data_parallel_size": 2}}
    with node_of(mixture, model, (str(mixture / "model"), "/models/moe", "ro")) as node:
        assert node.wait_exit(60) == 78
        assert (
            "models[m]: engine_args.data_parallel_size: 2 ranks of a mixture of experts exchange what vLLM's CPU build cannot"
            in node.logs()
        )


def test_copies_of_a_dense_model_become_replicas(tmp_path: Path, questions: dict[str, str]) -> None:
    said = "m: data_parallel_size of a dense model means copies that share nothing; it becomes 2 replicas"
    model = {"source": "demo", "engine_args": {"data_parallel_size": 2, "max_model_len": 2048}}
    with node_of(tmp_path, model) as node:
        node.api.wait_ready()
        until("two replicas", lambda: node.api.health()["models"][0]["replicas"] == 2, 120)
        assert said in node.logs()
        assert said in json.loads(node.exec("ray-serve-cai", "plan", "--json").stdout)["models"]
        for question in list(questions)[:4]:
            assert node.api.ask(question, "m") == questions[question]
