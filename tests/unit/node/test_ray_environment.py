import pytest

from ray_serve_cai.node.ray_environment import RAY_ENVIRONMENT, child_environment, proxy_threads


def test_children_see_the_environment_without_the_token() -> None:
    env = {"PATH": "/bin", "RSCAI_TOKEN": "secret", "RAY_AUTH_TOKEN": "secret", "HF_TOKEN": "hf"}
    child = child_environment(env, 60, 2)
    assert "secret" not in child.values()
    assert (child["PATH"], child["HF_TOKEN"]) == ("/bin", "hf")


def test_what_is_empty_is_not_set_for_the_hubs_library() -> None:
    """It would take an empty HF_ENDPOINT for an address."""
    child = child_environment({"HF_ENDPOINT": "", "HF_HUB_OFFLINE": "", "HF_HOME": "/hf"}, 60, 2)
    assert {name: value for name, value in child.items() if name.startswith("HF_")} == {"HF_HOME": "/hf"}


def test_a_schedulers_ranks_are_not_the_engines() -> None:
    env = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "n0", "LOCAL_RANK": "0", "RAY_ADDRESS": "n0:6379", "NCCL_DEBUG": "INFO"}
    child = child_environment(env, 60, 2)
    assert child.keys().isdisjoint(env.keys() - {"NCCL_DEBUG"})
    assert child["NCCL_DEBUG"] == "INFO"


@pytest.mark.parametrize("name", RAY_ENVIRONMENT)
def test_what_holds_on_every_node_wins(name: str) -> None:
    assert child_environment({name: "mine"}, 60, 2)[name] == RAY_ENVIRONMENT[name]


@pytest.mark.parametrize(("drain_s", "hard_stop"), [(0, "120"), (120, "120"), (500, "500")])
def test_rays_proxy_lives_as_long_as_the_drain(drain_s: int, hard_stop: str) -> None:
    assert child_environment({}, drain_s, 2)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == hard_stop


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_a_proxy_takes_what_a_node_can_spare(cpus: int, threads: int) -> None:
    assert proxy_threads(cpus) == threads
    assert child_environment({}, 0, cpus)["RAY_SERVE_HAPROXY_NBTHREAD"] == str(threads)
    assert child_environment({"RAY_SERVE_HAPROXY_NBTHREAD": "7"}, 0, cpus)["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_no_proxy_comes_between_a_node_and_its_cluster(name: str) -> None:
    env = {name: "http://proxy.example.com:3128", "no_proxy": "intern.example.com, 127.0.0.1"}
    child = child_environment(env, 60, 2, ["10.0.0.5", "head"])
    assert child["NO_PROXY"] == child["no_proxy"] == "intern.example.com,127.0.0.1,localhost,::1,10.0.0.5,head"
    assert child[name] == env[name]


def test_without_a_proxy_nothing_is_said_of_one() -> None:
    assert "NO_PROXY" not in child_environment({"HTTP_PROXY": ""}, 60, 2, ["10.0.0.5"])
