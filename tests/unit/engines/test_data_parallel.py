import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import config
from ray_serve_cai.engines import data_parallel
from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments
from ray_serve_cai.engines.registry import SGLANG, VLLM
from ray_serve_cai.engines.vllm_config import VLLMConfigBuilder
from ray_serve_cai.errors import ConfigError
from ray_serve_cai.serving import app

DENSE, MIXTURE = {"model_type": "llama"}, {"model_type": "qwen3_moe", "num_experts": 4}


def model(directory: Path, document: Any) -> str:
    (directory / "config.json").write_text(json.dumps(document))
    return str(directory)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (DENSE, False),
        (MIXTURE, True),
        ({"num_local_experts": 8}, True),
        ({"n_routed_experts": 0}, False),
        ({"n_routed_experts": None, "num_local_experts": 2}, True),
        ({"num_experts": [4, 4, 0]}, True),
        ({"moe_num_experts": []}, False),
        ({"text_config": MIXTURE}, True),
        ({"num_experts": 4, "text_config": DENSE}, False),
        ({"thinker_config": {"text_config": MIXTURE}}, True),
        ({"block_configs": [{"block_type": "mamba"}, {"block_type": "moe", "n_routed_experts": 16}]}, True),
        ({"block_configs": [{"block_type": "attention", "n_routed_experts": 16}]}, False),
        ({"num_experts": "many"}, False),
    ],
)
def test_which_model_is_a_mixture_of_experts(document: dict[str, Any], expected: bool, tmp_path: Path) -> None:
    assert data_parallel.is_mixture_of_experts(document) is expected
    assert data_parallel.experts(model(tmp_path, document)) is expected


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_what_is_not_known(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert data_parallel.experts(str(tmp_path)) is None
    assert data_parallel.experts("org/on-the-hub") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
KEYS = st.sampled_from((*data_parallel._EXPERTS, *data_parallel._TEXT, "block_configs"))


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)))
def test_any_model_is_judged(document: dict[str, Any]) -> None:
    assert data_parallel.is_mixture_of_experts(document) in (True, False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 1),
        ({"data_parallel_size": 2}, 2),
        ({"dp_size": 3}, 3),
        ({"dp_size": 2, "enable_dp_attention": True}, 1),
        ({"dp_size": 2, "attn_dp_size": 2}, 1),
        ({"data_parallel_size": "2"}, 2),
        ({"data_parallel_size": 0}, 1),
        ({"data_parallel_size": "two"}, 1),
    ],
)
def test_how_often_the_model_is_there(arguments: dict[str, Any], expected: int) -> None:
    assert data_parallel.size(arguments) == expected


def test_copies_of_a_dense_model_become_replicas(tmp_path: Path) -> None:
    made = of_arguments(VLLM, {"model": model(tmp_path, DENSE), "data_parallel_size": 2}, ranks=2, use_cpu=False, replicas=3)
    assert (made.replicas, made.ranks, made.gpus, made.arguments) == (6, 2, 2, {})


@pytest.mark.parametrize(("info", "argument", "document"), [(VLLM, "data_parallel_size", MIXTURE), (SGLANG, "dp_size", DENSE)])
def test_where_the_engine_runs_the_copies_they_are_ranks_with_gpus(info: Any, argument: str, document: Any, tmp_path: Path) -> None:
    made = of_arguments(info, {"model": model(tmp_path, document), argument: 2}, ranks=2, use_cpu=False, replicas=3)
    assert (made.replicas, made.ranks, made.gpus, made.arguments) == (3, 4, 4, {argument: 2})


@pytest.mark.parametrize("info", [VLLM, SGLANG])
def test_copies_inside_a_replica_that_spans_nodes_are_refused(info: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"models\[org/x\]: data_parallel_size is 2, which works inside a node only; set nodes_per_replica"
    ):
        of_arguments(info, {"model": "org/x", "data_parallel_size": 2}, ranks=2, use_cpu=False, nodes=2)


def test_a_model_of_the_hub_is_the_engines_to_judge() -> None:
    made = of_arguments(VLLM, {"model": "org/x", "data_parallel_size": 2}, ranks=1, use_cpu=False)
    assert (made.replicas, made.ranks, made.arguments) == (1, 2, {"data_parallel_size": 2})


def test_two_numbers_of_copies(tmp_path: Path) -> None:
    scaling = config.AutoscalingConfig(max=2)
    arguments = {"model": model(tmp_path, DENSE), "served_model_name": "d", "data_parallel_size": 2}
    with pytest.raises(
        ConfigError, match=r"models\[d\]: data_parallel_size is 2 and autoscaling is set, and both number copies; keep one\."
    ):
        of_arguments(VLLM, arguments, ranks=1, use_cpu=True, autoscaling=scaling)


def engines_of(source: str, **more: Any) -> tuple[config.Config, list[EngineConfig]]:
    given = config.parse({"models": [{"source": source, "name": "m", **more}]}, "my.yaml")
    return given, app.engine_configs(given, default_engine="vllm", device="cuda", drain_s=6)


def test_what_became_of_it_is_said(tmp_path: Path) -> None:
    given, engines = engines_of(model(tmp_path, DENSE), engine_args={"data-parallel-size": 2})
    assert app.notes(given, engines) == ["m: data_parallel_size of a dense model means copies that share nothing; it becomes 2 replicas"]
    assert engines[0].layout() == "vllm, 2 replicas of 1 rank on 1 node with 1 GPU and 1 CPU"
    assert app.notes(*engines_of(model(tmp_path, DENSE))) == []
    assert app.notes(*engines_of(model(tmp_path, DENSE), autoscaling={"min": 2, "max": 3})) == []


def test_a_mixture_of_experts_on_cpus(tmp_path: Path) -> None:
    given = {"model": "m", "model_source": model(tmp_path, MIXTURE), "use_cpu": True, "engine_args": {"data_parallel_size": 2}}
    ok, message = VLLMConfigBuilder().validate_config(given)
    assert (ok, str(message).startswith("engine_args.data_parallel_size: 2 ranks of a mixture of experts exchange what")) == (False, True)
    assert VLLMConfigBuilder().validate_config(given | {"use_cpu": False})[0]


def test_what_the_launcher_decides() -> None:
    ok, message = VLLMConfigBuilder().validate_config({"model": "m", "engine_args": {"data_parallel_rank": 0}})
    assert not ok
    assert "data_parallel_size and replicas" in str(message)
