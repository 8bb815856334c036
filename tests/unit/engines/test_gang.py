import psutil
import pytest

gang = pytest.importorskip("ray_serve_cai.engines.gang", reason="ray[serve] is not installed", exc_type=ImportError)


def test_all_ranks_talk_over_the_interface_of_the_nodes_address() -> None:
    loopback = next(name for name, addresses in psutil.net_if_addrs().items() if any(one.address == "127.0.0.1" for one in addresses))
    made = gang.socket_environment("127.0.0.1", {"NCCL_SOCKET_IFNAME": "ib0"})
    assert made == {
        "VLLM_HOST_IP": "127.0.0.1",
        "SGLANG_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": loopback,
        "TP_SOCKET_IFNAME": loopback,
    }


def test_an_address_that_no_interface_has() -> None:
    assert gang.socket_environment("203.0.113.9", {}) == {"VLLM_HOST_IP": "203.0.113.9", "SGLANG_HOST_IP": "203.0.113.9"}


def test_settings_of_the_engine_are_the_same_on_all_ranks_and_a_nodes_own_stay() -> None:
    settings = {"VLLM_LOGGING_LEVEL": "DEBUG", "NCCL_DEBUG": "INFO", "SGLANG_USE_CPU_ENGINE": "1"}
    own = {"VLLM_HOST_IP": "10.0.0.1", "NCCL_SOCKET_IFNAME": "eth0", "VLLM_PORT": "1", "SGLANG_CPU_OMP_THREADS_BIND": "0|1"}
    assert gang.shared_environment(settings | own | {"HF_TOKEN": "secret", "PATH": "/bin"}) == settings
