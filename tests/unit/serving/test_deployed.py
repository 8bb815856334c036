import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import config
from ray_serve_cai.config import Config
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import ModelNotFoundError
from ray_serve_cai.serving import deployed


def parsed(*models: dict[str, Any], **sections: Any) -> Config:
    return config.parse({"models": [{"source": "demo", **model} for model in models or ({},)], **sections}, "my.yaml")


GIVEN = parsed()
UPDATED = parsed({"replicas": 2, "engine_args": {"max_model_len": 512}})


def served(file: Path, given: Config) -> Config:
    return deployed.current(file, given, lambda _: [])[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deployed.json"


def test_before_any_update_what_is_given_is_served(file: Path) -> None:
    assert served(file, GIVEN) == GIVEN
    assert not file.exists()


@pytest.mark.parametrize(
    "updated",
    [
        pytest.param(UPDATED, id="some keys"),
        pytest.param(parsed(), id="every default"),
        pytest.param(parsed({"autoscaling": {"min": 2, "max": 4, "target_ongoing_requests": 2, "upscale_delay_s": 1}}), id="autoscaling"),
        pytest.param(parsed({"autoscaling": None, "replicas": 2, "engine": None}), id="keys that say nothing"),
        pytest.param(
            parsed(
                {"cpus_per_replica": 2, "device": "cpu", "engine_args": {"a-b": {"c": [1, 0.5, None, True, "d"]}, "e": {}}},
                {"source": "org/x", "name": "x/y", "tensor_parallel_size": 4, "nodes_per_replica": 2, "max_queued": 0},
                server={"max_body_mb": 8},
                cluster={"port": 7000, "dashboard": {"enabled": False}, "resources": {"num_cpus": 2}},
            ),
            id="all kinds of keys",
        ),
    ],
)
def test_the_last_update_outlives_a_restart(file: Path, updated: Config) -> None:
    deployed.keep(file, GIVEN, updated)
    found = served(file, GIVEN)
    assert found == updated
    assert [model.model_fields_set for model in found.models] == [model.model_fields_set for model in updated.models]


def test_of_several_updates_the_last_one_counts(file: Path) -> None:
    deployed.keep(file, GIVEN, parsed({"replicas": 7}))
    deployed.keep(file, GIVEN, UPDATED)
    assert served(file, GIVEN) == UPDATED


@pytest.mark.parametrize(
    "given",
    [
        parsed({"replicas": 3}),
        parsed({"name": "other"}),
        parsed({"autoscaling": {"max": 2}}),
        parsed({"engine_args": {"a": 1}}),
        parsed(server={"max_body_mb": 8}),
        parsed({}, {"name": "second"}),
    ],
)
def test_a_configuration_that_is_given_anew_counts_more_than_an_older_update(file: Path, given: Config) -> None:
    deployed.keep(file, GIVEN, UPDATED)
    assert served(file, given) == given
    assert served(file, GIVEN) == GIVEN  # the older update is void from now on


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"given": 5}',
        b'{"given": GIVEN}',
        b'{"given": GIVEN, "config": null}',
        b'{"given": GIVEN, "config": {"models": []}}',
        b'{"given": GIVEN, "config": {"models": [{"source": "demo", "a_key_of_a_later_release": 1}]}}',
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_passed_over(file: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    deployed.keep(file, GIVEN, UPDATED)
    digest = json.dumps(json.loads(file.read_text())["given"]).encode()
    file.write_bytes(content.replace(b"GIVEN", digest))
    assert served(file, GIVEN) == GIVEN
    if content != b'{"given": 5}':  # of another configuration, as far as one can tell
        assert f"{file} cannot be read" in caplog.text


def test_a_directory_is_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert served(tmp_path, GIVEN) == GIVEN
    assert f"{tmp_path} cannot be read" in caplog.text


def test_only_this_user_can_read_it(file: Path) -> None:
    deployed.keep(file, GIVEN, UPDATED)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 40), 1 << 40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SCALED = st.fixed_dictionaries(
    {"max": st.integers(4, 9)}, optional={"min": st.integers(1, 4), "target_ongoing_requests": st.floats(0.1, 9)}
)
MODELS = st.fixed_dictionaries(
    {"source": st.sampled_from(["demo", "org/x"])},
    optional={
        "engine_args": st.dictionaries(st.from_regex(r"x[a-z]{0,5}", fullmatch=True), VALUES, max_size=3),
        "autoscaling": st.none() | SCALED,
        "cpus_per_replica": st.integers(1, 4) | st.floats(0.1, 4),
        "max_queued": st.integers(0, 5),
        "engine": st.none() | st.just("vllm"),
    },
)


@given(MODELS, MODELS)
def test_whatever_is_deployed_is_served_again(tmp_path_factory: pytest.TempPathFactory, one: dict[str, Any], other: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "deployed-any.json"
    first, second = (config.parse({"models": [model]}, "my.yaml") for model in (one, other))
    deployed.keep(file, first, second)
    assert served(file, first) == second


def test_an_update_that_can_no_longer_be_served_is_told_and_passed_over(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its model's directory has gone, for example."""
    deployed.keep(file, GIVEN, UPDATED)

    def build(wanted: Config) -> list[EngineConfig]:
        if wanted == UPDATED:
            raise ModelNotFoundError("model path '/x' does not exist.")
        return []

    assert deployed.current(file, GIVEN, build) == (GIVEN, [])
    assert "cannot be served now (model path '/x' does not exist.); the one given is" in caplog.text
    with pytest.raises(ModelNotFoundError):
        deployed.current(file, UPDATED, build)
