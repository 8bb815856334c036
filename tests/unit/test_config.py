import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import config
from ray_serve_cai.config import Config, ModelConfig
from ray_serve_cai.errors import ConfigError, UsageError

FULL = """
models:
  - source: demo
    engine: vllm
    replicas: 2
    tensor_parallel_size: 2
    pipeline_parallel_size: 3
    cpus_per_replica: 0.5
    max_concurrent: 10
    max_queued: 0
    device: cpu
    engine_args:
      --max-model-len: 512
      dtype: float32
  - name: big
    source: Qwen/Qwen3-0.6B
    autoscaling: {max: 4, target_ongoing_requests: 8}
server:
  max_body_mb: 8
"""


def one_model(**fields: Any) -> dict[str, Any]:
    return {"models": [{"source": "demo", **fields}]}


def error_of(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(data, "my.yaml")
    return str(caught.value)


def test_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(FULL)
    loaded = config.load(file)
    first, second = loaded.models
    assert (first.name, first.source, first.engine, first.replicas, first.device) == ("demo", "demo", "vllm", 2, "cpu")
    assert first.ranks == 6
    assert first.cpus_per_replica == 0.5
    assert first.engine_args == {"max_model_len": 512, "dtype": "float32"}
    assert (second.name, second.source, second.engine, second.ranks) == ("big", "Qwen/Qwen3-0.6B", None, 1)
    assert (first.max_concurrent, first.max_queued, first.autoscaling) == (10, 0, None)
    assert second.autoscaling == config.AutoscalingConfig(
        min=1, max=4, target_ongoing_requests=8, upscale_delay_s=30, downscale_delay_s=600
    )
    assert loaded.server.max_body_mb == 8


def test_defaults() -> None:
    loaded = config.parse(one_model(), "my.yaml")
    model = loaded.models[0]
    assert (model.name, model.replicas, model.ranks, model.cpus_per_replica, model.device) == ("demo", 1, 1, 1.0, "auto")
    assert model.engine_args == {}
    assert (model.max_concurrent, model.max_queued, model.autoscaling) == (1024, 1024, None)
    assert loaded.server.max_body_mb == 32


def test_every_field_says_what_it_means() -> None:
    sections = (config.AutoscalingConfig, config.ServerConfig, config.ClusterConfig, config.DashboardConfig, config.ResourcesConfig)
    for model in (Config, ModelConfig, *sections):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_a_configuration_cannot_be_changed() -> None:
    loaded = config.parse(one_model(), "my.yaml")
    with pytest.raises(ValueError, match="frozen"):
        loaded.models[0].replicas = 3  # type: ignore[misc]


def test_a_cluster_section_alone_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster:\n  port: 7000\n  dashboard: {enabled: false}\n  resources: {num_cpus: 2}\n")
    found = config.load_cluster(file)
    assert (found.port, found.block, found.dashboard.enabled, found.dashboard.port) == (7000, False, False, 8265)
    assert (found.resources.num_cpus, found.resources.num_gpus, found.resources.object_store_memory) == (2, None, None)
    with pytest.raises(ConfigError, match="models: missing"):
        config.load(file)


def test_the_cluster_section_of_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(FULL)
    assert config.load_cluster(file) == config.load(file).cluster == config.ClusterConfig.model_validate({})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("cluster: {prt: 1}", "cluster.prt: unknown key; did you mean port?"),
        ("cluster: {dashboard: {prt: 1}}", "cluster.dashboard.prt: unknown key; did you mean port?"),
        ("cluster: {resources: {num_cpus: -1}}", "cluster.resources.num_cpus: -1"),
        ("- cluster", "holds list, not a mapping"),
    ],
)
def test_a_cluster_section_that_is_wrong(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load_cluster(file)
    assert str(caught.value).startswith(f"{file}: {part}")


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        pytest.param(None, ["holds NoneType", "start with `models:`"], id="empty file"),
        pytest.param([1], ["holds list", "start with `models:`"], id="a list"),
        pytest.param({}, ["models: missing", "add it"], id="no models"),
        pytest.param({"models": []}, ["models: []", "at least 1"], id="empty models"),
        pytest.param({"models": {}}, ["models: {}", "valid list"], id="models no list"),
        pytest.param({"models": ["demo"]}, ["models[0]: 'demo'"], id="model no mapping"),
        pytest.param({"models": [{"name": "x"}]}, ["models[0].source: missing", "add it"], id="no source"),
        pytest.param(one_model(replica=2), ["models[0].replica: unknown key", "did you mean replicas?"], id="near key"),
        pytest.param(one_model(zzz=2), ["models[0].zzz: unknown key", "known keys: name, source, engine, replicas"], id="far key"),
        pytest.param({**one_model(), "servr": {}}, ["servr: unknown key", "did you mean server?"], id="near top key"),
        pytest.param({**one_model(), "server": {"max_body": 1}}, ["server.max_body: unknown key", "max_body_mb?"], id="near server key"),
        pytest.param({**one_model(), "server": {"x": 1}}, ["server.x", "known keys: max_body_mb."], id="far server key"),
        pytest.param(one_model(max_concurrent=0), ["models[0].max_concurrent: 0", "greater than or equal to 1"], id="nothing may run"),
        pytest.param(one_model(max_queued=-1), ["models[0].max_queued: -1", "greater than or equal to 0"], id="less than none may wait"),
        pytest.param(one_model(autoscaling={}), ["models[0].autoscaling.max: missing", "add it"], id="no largest number of copies"),
        pytest.param(one_model(autoscaling=2), ["models[0].autoscaling: 2"], id="autoscaling no mapping"),
        pytest.param(
            one_model(autoscaling={"min": 3, "max": 2}),
            ["models[0].autoscaling: ", "min is 3 and max is 2; make max at least 3"],
            id="min over max",
        ),
        pytest.param(
            one_model(autoscaling={"min": 0, "max": 2}), ["models[0].autoscaling.min: 0", "greater than or equal to 1"], id="to zero"
        ),
        pytest.param(
            one_model(autoscaling={"max": 2, "target_requests": 8}),
            ["models[0].autoscaling.target_requests: unknown key", "did you mean target_ongoing_requests?"],
            id="near autoscaling key",
        ),
        pytest.param(
            one_model(autoscaling={"max": 2, "target_ongoing_requests": 0}),
            ["models[0].autoscaling.target_ongoing_requests: 0", "greater than 0"],
            id="no load at all",
        ),
        pytest.param(
            one_model(autoscaling={"max": 2, "upscale_delay_s": -1}), ["models[0].autoscaling.upscale_delay_s: -1"], id="before the load"
        ),
        pytest.param(
            one_model(replicas=2, autoscaling={"max": 2}),
            ["models[0]: ", "replicas and autoscaling are both set; keep one of them"],
            id="copies twice",
        ),
        pytest.param({**one_model(), 5: 1}, ["5", "should be strings"], id="key no string"),
        pytest.param(one_model(replicas="2"), ["models[0].replicas: '2'", "valid integer"], id="text for a number"),
        pytest.param(one_model(replicas=True), ["models[0].replicas: True", "valid integer"], id="bool for a number"),
        pytest.param(one_model(replicas=0), ["models[0].replicas: 0", "greater than or equal to 1"], id="none at all"),
        pytest.param(one_model(cpus_per_replica=0), ["models[0].cpus_per_replica: 0", "greater than 0"], id="no CPU"),
        pytest.param(one_model(device="tpu"), ["models[0].device: 'tpu'", "'auto', 'cpu' or 'cuda'"], id="device"),
        pytest.param(one_model(name=""), ["models[0].name: ''", "at least 1 character"], id="empty name"),
        pytest.param(one_model(name="a b"), ["models[0].name: 'a b'", "use letters, digits"], id="blank in name"),
        pytest.param(one_model(name="a//b"), ["models[0].name: 'a//b'", "use letters, digits"], id="empty segment"),
        pytest.param(one_model(name="../b"), ["models[0].name: '../b'", "use letters, digits"], id="dots in name"),
        pytest.param(one_model(engine_args=[1]), ["models[0].engine_args: [1]", "write a mapping"], id="engine_args no mapping"),
        pytest.param(
            one_model(engine_args={"model": "x"}), ["engine_args.model is set by the model's own keys", "move the value"], id="model twice"
        ),
        pytest.param(
            one_model(engine_args={"--served-model-name": "x"}),
            ["engine_args.served_model_name is set by the model's own keys"],
            id="name twice",
        ),
        pytest.param(
            one_model(engine_args={"model": "x", "api_key": "y"}), ["engine_args: a mapping: engine_args.model"], id="values are secrets"
        ),
        pytest.param(one_model(engine_args={"tensor-parallel-size": 2}), ["engine_args.tensor_parallel_size", "move"], id="TP twice"),
        pytest.param(one_model(engine_args={"pipeline_parallel_size": 2}), ["engine_args.pipeline_parallel_size"], id="PP twice"),
        pytest.param(
            {"models": [{"source": "demo"}, {"source": "x", "name": "demo"}]},
            ["models: ", "two models are named 'demo'", "names must differ"],
            id="same name",
        ),
    ],
)
def test_an_error_holds_file_path_value_and_fix(data: object, parts: list[str]) -> None:
    message = error_of(data)
    assert message.startswith("my.yaml: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(("one", "other"), [("a", "/a"), ("org/a", "org--a"), ("a", "a/b")])
def test_models_that_would_share_a_url_or_an_application_are_refused(one: str, other: str) -> None:
    assert "differ" in error_of({"models": [{"source": "x", "name": one}, {"source": "y", "name": other}]})


def test_all_errors_are_told_at_once() -> None:
    message = error_of({"models": [{"source": "demo", "replicas": 0, "nme": "x"}]})
    assert "models[0].replicas" in message
    assert "models[0].nme" in message
    assert "did you mean name?" in message


def test_a_long_value_is_cut() -> None:
    message = error_of(one_model(replicas="x" * 500))
    assert "..." in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        pytest.param(b"models: [", ["not YAML"], id="unclosed"),
        pytest.param(b"a: b: c", ["not YAML", "line 1"], id="two colons"),
        pytest.param(b"\xff\xfe\x00", ["not YAML"], id="no text"),
        pytest.param(b"a: !!python/object:os.system x", ["not YAML"], id="a Python object"),
        pytest.param(b"models: 2024-13-01", ["not YAML"], id="no date"),
        pytest.param(b"[" * 700, ["not YAML"], id="too deep"),
        pytest.param(b"", ["holds NoneType"], id="empty"),
    ],
)
def test_what_is_no_yaml(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    file = tmp_path / "serve.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    for part in [str(file), *parts]:
        assert part in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "no.yaml")) + r".*No such file.*RSCAI_CONFIG"):
        config.load(tmp_path / "no.yaml")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)


def test_nothing_set_serves_the_demo_model() -> None:
    model = config.from_environment({}).models[0]
    assert (model.name, model.source, model.engine, model.engine_args) == ("demo", "demo", None, {})


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"RSCAI_MODEL": "Qwen/Qwen3-0.6B"}, ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", None, {})),
        ({"RSCAI_MODEL": " demo ", "RSCAI_ENGINE": ""}, ("demo", "demo", None, {})),
        ({"RSCAI_MODEL": "/models/x", "RSCAI_MODEL_NAME": "x"}, ("x", "/models/x", None, {})),
        ({"RSCAI_ENGINE": "sglang"}, ("demo", "demo", "sglang", {})),
        ({"RSCAI_ENGINE_ARGS": '{"max-model-len": 512, "a": [1]}'}, ("demo", "demo", None, {"max_model_len": 512, "a": [1]})),
    ],
)
def test_a_model_of_the_environment(env: dict[str, str], expected: tuple[object, ...]) -> None:
    model = config.from_environment(env).models[0]
    assert (model.name, model.source, model.engine, model.engine_args) == expected


def test_a_file_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(FULL)
    assert config.from_environment({"RSCAI_CONFIG": str(file), "RSCAI_MODEL": ""}) == config.load(file)


@pytest.mark.parametrize("name", ["RSCAI_MODEL", "RSCAI_MODEL_NAME", "RSCAI_ENGINE", "RSCAI_ENGINE_ARGS"])
def test_a_file_and_a_variable_contradict(name: str) -> None:
    with pytest.raises(UsageError, match=f"RSCAI_CONFIG and {name} are both set.*unset {name}"):
        config.from_environment({"RSCAI_CONFIG": "x.yaml", name: "demo"})


@pytest.mark.parametrize(("value", "part"), [("{", "is not JSON"), ("max_model_len=5", "is not JSON"), ("[1]", "'[1]'"), ("5", "'5'")])
def test_engine_arguments_that_are_no_json_object(value: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.from_environment({"RSCAI_ENGINE_ARGS": value})
    for expected in ("RSCAI_ENGINE_ARGS", part, '{"max_model_len": 2048}'):
        assert expected in str(caught.value)


@pytest.mark.parametrize("source", ["/models/my model", "./x", "~/x"])
def test_a_source_that_is_no_name_asks_for_one(source: str) -> None:
    with pytest.raises((ConfigError, UsageError), match="RSCAI_MODEL_NAME"):
        config.from_environment({"RSCAI_MODEL": source})


def test_a_path_may_end_with_a_slash() -> None:
    assert config.from_environment({"RSCAI_MODEL": "/models/x/"}).models[0].source == "/models/x/"


def test_an_impossible_model_of_the_environment() -> None:
    with pytest.raises(ConfigError, match=r"environment: models\[0\]\.name: 'a b'"):
        config.from_environment({"RSCAI_MODEL": "/x", "RSCAI_MODEL_NAME": "a b"})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
KEYS = (
    st.sampled_from(
        [*Config.model_fields, *ModelConfig.model_fields, *config.AutoscalingConfig.model_fields, *config.ServerConfig.model_fields]
    )
    | st.text(max_size=8)
    | st.integers()
)
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20)
SOURCES = st.sampled_from(["demo", "Qwen/Qwen3-0.6B", "/models/x"]) | SCALARS
FIELDS = {name: DATA for name in ModelConfig.model_fields if name != "source"}
MODELS = st.lists(st.fixed_dictionaries({"source": SOURCES}, optional=FIELDS), max_size=3)
LIKELY = st.fixed_dictionaries({"models": MODELS}, optional={"server": DATA})


@pytest.mark.parametrize(("limits", "target", "refused"), [({}, 64, False), ({}, 2047.5, False), ({}, 2048, True),
    ({"max_concurrent": 2, "max_queued": 2}, None, False), ({"max_concurrent": 2, "max_queued": 2}, 64, True)])  # fmt: skip
def test_a_load_that_is_never_seen(limits: dict[str, int], target: float | None, refused: bool) -> None:
    scaled = {"max": 3} | ({"target_ongoing_requests": target} if target else {})
    document = {"models": [{"source": "demo", "autoscaling": scaled} | limits]}
    if not refused:
        config.parse(document, "my.yaml")
        return
    with pytest.raises(ConfigError, match=rf"target_ongoing_requests is {target}, but a copy takes no more than \d+ requests .* set it below"):
        config.parse(document, "my.yaml")


@given(DATA | LIKELY)
def test_any_data_is_a_config_or_a_config_error(data: object) -> None:
    try:
        parsed = config.parse(data, "my.yaml")
    except ConfigError as error:
        assert str(error).startswith("my.yaml: ")  # noqa: PT017
    else:
        assert len({model.name for model in parsed.models}) == len(parsed.models)


@given(LIKELY)
def test_yaml_of_any_data_loads_as_the_data_itself(data: object) -> None:
    def outcome(value: object) -> str:
        try:
            return repr(config.parse(value, "my.yaml"))
        except ConfigError as error:
            return str(error)

    assert outcome(yaml.safe_load(yaml.safe_dump(data, sort_keys=False))) == outcome(data)


@given(st.dictionaries(st.sampled_from(["RSCAI_MODEL", "RSCAI_MODEL_NAME", "RSCAI_ENGINE", "RSCAI_ENGINE_ARGS"]), st.text(max_size=30)))
def test_any_environment_is_a_config_or_a_typed_error(env: dict[str, str]) -> None:
    try:
        parsed = config.from_environment(env)
    except (ConfigError, UsageError) as error:
        assert str(error)  # noqa: PT017
    else:
        assert len(parsed.models) == 1


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True), SCALARS.filter(lambda value: value == value), max_size=4))
def test_engine_arguments_pass_through_json_unchanged(arguments: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(arguments, default=str))
    reserved = {"model", "served_model_name", "tensor_parallel_size", "pipeline_parallel_size"}
    if reserved.isdisjoint(plain):
        assert config.from_environment({"RSCAI_ENGINE_ARGS": json.dumps(plain)}).models[0].engine_args == plain


def test_a_replicas_ranks_divide_over_its_nodes() -> None:
    given = {"source": "demo", "tensor_parallel_size": 2, "pipeline_parallel_size": 2, "nodes_per_replica": 2}
    assert config.parse({"models": [given]}, "test").models[0].nodes_per_replica == 2
    with pytest.raises(ConfigError, match="nodes_per_replica is 3 and a replica has 4 ranks"):
        config.parse({"models": [given | {"nodes_per_replica": 3}]}, "test")
