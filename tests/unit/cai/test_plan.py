"""From what is there to what is wanted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai import config as serving
from ray_serve_cai.cai.config import CaiConfig, CaiFile
from ray_serve_cai.cai.models import Application, Project
from ray_serve_cai.cai.plan import Action, Plan, There, plan, teardown
from ray_serve_cai.cai.requests import SPEC, TOKEN, Shared, configuration, project_files, wants
from ray_serve_cai.errors import PlatformRefusedError, UsageError

pytestmark = pytest.mark.issue(9)
SHARED = Shared("t" * 48, {"VLLM_API_KEY": "", "HF_TOKEN": "hf_secret"})


def wanted(models: Any = None, **cai: Any) -> CaiFile:
    section = CaiConfig.model_validate({"name": "m", "runtime": "r", "workers": {"gpu": {"count": 2, "gpus": 1}}} | cai)
    return CaiFile(cai=section, serving=serving.parse({"models": models or [{"source": "demo"}]}, "test"))


def there(what: CaiFile, shared: Shared = SHARED, status: str = "APPLICATION_RUNNING") -> list[Application]:
    """The applications as the API gives them once a plan is done."""
    made = []
    for number, request in enumerate(wants(what, shared).values()):
        body = request.body() | {"id": f"app-{number}", "status": status, "environment": json.dumps(request.environment)}
        made.append(Application.model_validate(body))
    return made


def planned(what: CaiFile, found: list[Application], shared: Shared = SHARED, shared_memory_mb: int = 0, **there_is: Any) -> Plan:
    """With all files in their places, unless it is said otherwise."""
    files = {path: len(content) for path, content in project_files(what).items()}
    project = Project(id="p", shared_memory_limit=shared_memory_mb, environment=there_is.get("environment", {}))
    return plan(what, There(found, project, there_is.get("files", files)), shared)


def actions(made: Plan) -> dict[str, Action]:
    return {step.name: step.action for step in made.steps}


def test_an_empty_project() -> None:
    made = planned(wanted(), [], SHARED, 0)
    assert actions(made) == dict.fromkeys(("m-head", "m-gpu-1", "m-gpu-2"), Action.CREATE)
    head, worker = made.steps[0].request, made.steps[1].request
    assert head is not None
    assert worker is not None
    assert (head.subdomain, worker.subdomain) == ("m", "m-gpu-1")
    assert (head.environment["RSCAI_ROLE"], worker.environment["RSCAI_ROLE"]) == ("head", "worker")
    assert re.fullmatch(r"/home/cdsw/ray-serve-cai/m\.[0-9a-f]{16}\.yaml", head.environment["RSCAI_CONFIG"])
    assert "RSCAI_CONFIG" not in worker.environment
    assert head.environment["RSCAI_CLUSTER_DIR"] == worker.environment["RSCAI_CLUSTER_DIR"] == "/home/cdsw/ray-serve-cai"
    assert (head.bypass_authentication, worker.bypass_authentication) == (False, False)
    assert "kernel" not in head.body()
    assert worker.environment["NCCL_IB_DISABLE"] == "1"
    assert "NCCL_IB_DISABLE" not in head.environment
    assert str(made).splitlines()[0] == "+ create  m-head (4 CPU, 16 GB)"
    assert str(made).splitlines()[-1] == "3 to do"


def test_the_files_of_the_project() -> None:
    what = wanted(models=[{"source": "demo", "replicas": 3}])
    made = planned(what, [], SHARED, 0, files={})
    place = str(configuration(what))
    assert set(made.files) == {"ray-serve-cai/launch.py", place}
    assert b"ray-serve-cai" in made.files["ray-serve-cai/launch.py"]
    read = serving.parse(yaml.safe_load(made.files[place]), "file")
    assert (read.models[0].source, read.models[0].replicas) == ("demo", 3)


def test_done_twice_is_done_once() -> None:
    assert not planned(wanted(), there(wanted()), Shared("another-token-of-this-shell", SHARED.secrets), 0).changes


def test_a_token_that_is_there_is_kept() -> None:
    made = planned(wanted(workers={"gpu": {"count": 3, "gpus": 1}}), there(wanted()), Shared("new" * 10, SHARED.secrets), 0)
    (step,) = made.changes
    assert (step.name, step.action) == ("m-gpu-3", Action.CREATE)
    assert step.request is not None
    assert step.request.environment[TOKEN] == SHARED.token


@pytest.mark.parametrize(
    ("changes", "names", "why"),
    [
        ({"head": {"cpu": 8}}, {"m-head"}, "cpu: 4 -> 8"),
        ({"workers": {"gpu": {"count": 2, "gpus": 2}}}, {"m-gpu-1", "m-gpu-2"}, "nvidia_gpu: 1 -> 2"),
        ({"runtime": "r2"}, {"m-head", "m-gpu-1", "m-gpu-2"}, "runtime_identifier: r -> r2"),
        ({"models": [{"source": "other"}]}, {"m-head"}, "the models or their settings; the head restarts"),
        ({"environment": {"A": "1"}}, {"m-head", "m-gpu-1", "m-gpu-2"}, "A: another value"),
    ],
)
def test_what_differs_is_changed_and_said(changes: dict[str, Any], names: set[str], why: str) -> None:
    made = planned(wanted(**changes), there(wanted()), SHARED, 0)
    assert {step.name for step in made.changes} == names
    assert {step.action for step in made.changes} == {Action.CHANGE}
    assert all(any(words.startswith(why) for words in step.why) for step in made.changes)


def test_fewer_workers_and_a_group_that_is_gone() -> None:
    made = planned(wanted(workers={"gpu": {"count": 1, "gpus": 1}}), there(wanted()), SHARED, 0)
    assert [(step.name, step.action, step.id) for step in made.changes] == [("m-gpu-2", Action.DELETE, "app-2")]
    assert [step.name for step in planned(wanted(workers={}), there(wanted()), SHARED, 0).changes] == ["m-gpu-1", "m-gpu-2"]


@pytest.mark.parametrize("status", ["APPLICATION_FAILED", "APPLICATION_STOPPED", "APPLICATION_STOPPING"])
def test_what_does_not_run_is_restarted(status: str) -> None:
    made = planned(wanted(), there(wanted(), status=status), SHARED, 0)
    assert set(actions(made).values()) == {Action.RESTART}


def test_a_secret_that_changes_is_a_change_that_is_not_shown() -> None:
    made = planned(wanted(), there(wanted()), Shared(SHARED.token, {"HF_TOKEN": "hf_another"}), 0)
    assert {step.action for step in made.changes} == {Action.CHANGE}
    assert "HF_TOKEN: another value" in str(made)
    assert not any(word in str(made) + repr(made) for word in ("hf_another", "hf_secret", SHARED.token))


def test_shared_memory_is_raised_and_never_lowered() -> None:
    assert planned(wanted(shared_memory_gb=16), [], SHARED, 64).shared_memory_mb == 16384
    assert planned(wanted(shared_memory_gb=16), [], SHARED, 32768).shared_memory_mb is None
    assert planned(wanted(), [], SHARED, 64).shared_memory_mb is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "m-head", "subdomain": "x"}, "named 'm-head'"),
        ({"name": "dashboard", "subdomain": "m"}, "at the subdomain 'm'"),
        ({"name": "m-gpu-1", "subdomain": "y", "environment": {"RSCAI_CLUSTER": "another"}}, "named 'm-gpu-1'"),
    ],
)
def test_what_is_somebody_elses_is_never_touched(other: dict[str, Any], words: str) -> None:
    with pytest.raises(PlatformRefusedError, match=words):
        planned(wanted(), [Application.model_validate({"id": "z", **other})], SHARED, 0)


def test_files_that_are_not_there_are_to_do_and_others_are_removed_at_the_end() -> None:
    made = planned(wanted(), there(wanted()), files={})
    assert not made.changes
    assert next(path.rpartition("/")[2] for path in made.files) == "launch.py"
    assert str(made).splitlines()[-1] == "2 to do"
    former = "ray-serve-cai/m.0123456789abcdef.yaml"
    files = {path: len(content) for path, content in project_files(wanted()).items()}
    others = {"ray-serve-cai/m-2.0123456789abcdef.yaml": 1, "ray-serve-cai/m.address.json": 1, "ray-serve-cai/mine.yaml": 1}
    made = planned(wanted(), there(wanted()), files={**files, **others, former: 7})
    assert (made.stale, dict(made.files)) == ((former,), {})


def test_a_change_takes_no_variable_of_the_project_away() -> None:
    made = planned(wanted(runtime="r2"), there(wanted()), environment={"HTTPS_PROXY": "http://p:1", "RSCAI_ROLE": "head"})
    for step in made.changes:
        assert step.request is not None
        assert step.request.environment["HTTPS_PROXY"] == "http://p:1"
        assert step.request.environment["RSCAI_ROLE"] == ("head" if step.name == "m-head" else "worker")


def test_values_of_variables_are_not_shown() -> None:
    before, after = wanted(environment={"AWS_SECRET_ACCESS_KEY": "old-secret"}), wanted(environment={"AWS_SECRET_ACCESS_KEY": "new-secret"})
    told = str(planned(after, there(before)))
    assert "AWS_SECRET_ACCESS_KEY: another value" in told
    assert "secret" not in told.replace("AWS_SECRET", "")


def test_a_gpu_label_that_goes_is_said() -> None:
    group = {"gpu": {"count": 1, "gpus": 1}}
    labelled = wanted(workers={"gpu": {**group["gpu"], "accelerator": "7"}})
    made = planned(wanted(workers=group), there(labelled))
    (step,) = made.changes
    assert step.why[0] == "accelerator_label_id: 7 -> "
    assert step.request is not None
    assert step.request.changes()["accelerator_label_id"] == ""


def test_the_models_key_belongs_to_endpoints_that_everybody_reaches() -> None:
    shared = Shared("t" * 48, {"VLLM_API_KEY": "k"})
    assert "VLLM_API_KEY" not in wants_of(planned(wanted(), [], shared))
    keys = wanted(authentication="keys")
    assert "VLLM_API_KEY" in wants_of(planned(keys, [], shared))
    assert "VLLM_API_KEY" not in wants_of(planned(wanted(), there(keys, shared), Shared("t" * 48, {"VLLM_API_KEY": ""})))


def wants_of(made: Plan) -> dict[str, str]:
    return next(step.request.environment for step in made.steps if step.request)


def test_an_open_endpoint_needs_a_key() -> None:
    with pytest.raises(UsageError, match="no key is given: set VLLM_API_KEY"):
        planned(wanted(authentication="keys"), [], SHARED, 0)
    made = planned(wanted(authentication="keys"), [], Shared("t" * 48, {"VLLM_API_KEY": "k"}), 0)
    assert [step.request and step.request.bypass_authentication for step in made.steps] == [True, False, False]


def test_teardown_takes_workers_first_and_nothing_of_others() -> None:
    others = Application(id="z", name="m-other", environment={"RSCAI_CLUSTER": "m2"})
    made = teardown("m", [others, *there(wanted())])
    assert [(step.name, step.action) for step in made.steps] == [(name, Action.DELETE) for name in ("m-gpu-1", "m-gpu-2", "m-head")]


NODES = st.fixed_dictionaries({"cpu": st.integers(1, 4), "gpus": st.integers(0, 2)})
GROUPS = st.dictionaries(
    st.sampled_from(["a", "b", "c-1"]), NODES.flatmap(lambda node: st.integers(0, 3).map(lambda count: node | {"count": count}))
)


@given(before=GROUPS, after=GROUPS)
def test_a_plan_that_is_done_leaves_nothing_to_do(before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = wanted(workers=before), wanted(workers=after)
    found = {one.name: one for one in there(old)}
    for step in planned(new, list(found.values()), SHARED, 0).changes:
        if step.action is Action.DELETE:
            del found[step.name]
        else:
            assert step.request is not None
            found[step.name] = Application.model_validate(
                step.request.body() | {"id": step.id or step.name, "status": "APPLICATION_RUNNING"}
            )
    assert not planned(new, list(found.values()), SHARED, 0).changes
    assert {one.name for one in found.values()} == set(new.cai.applications())
    assert {one.environment[SPEC] for one in found.values()} == {request.environment[SPEC] for request in wants(new, SHARED).values()}


def test_the_script_inside_the_image() -> None:
    what = wanted(script="image")
    made = planned(what, [], files={})
    assert [path.rpartition(".")[2] for path in made.files] == ["yaml"]
    requests = [step.request for step in made.steps if step.request]
    assert {request.script.rpartition("/")[2] for request in requests} == {"launch.py"}
    assert all(request.script.startswith("/opt/ray-serve-cai/") for request in requests)
    assert requests[0].environment["RSCAI_CLUSTER_DIR"] == "/home/cdsw/ray-serve-cai"
