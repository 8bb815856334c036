from pathlib import Path

import pytest

from ray_serve_cai import cgroup

V2_CPU = "sys/fs/cgroup/cpu.max"
V1_QUOTA, V1_PERIOD = "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"
V2_MEMORY, V1_MEMORY = "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"


PROC = "proc/self/cgroup"


def root_with(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no cgroup"),
        pytest.param({V2_CPU: "max 100000\n"}, None, id="v2 unlimited"),
        pytest.param({V2_CPU: "200000 100000\n"}, 2, id="v2"),
        pytest.param({V2_CPU: "150000 100000\n"}, 2, id="v2 rounds up"),
        pytest.param({V2_CPU: "5000 100000\n"}, 1, id="v2 at least one"),
        pytest.param({V2_CPU: ""}, None, id="v2 empty"),
        pytest.param({V1_QUOTA: "-1\n", V1_PERIOD: "100000\n"}, None, id="v1 unlimited"),
        pytest.param({V1_QUOTA: "250000\n", V1_PERIOD: "100000\n"}, 3, id="v1"),
        pytest.param({V1_QUOTA: "250000\n"}, None, id="v1 without period"),
        pytest.param({V2_CPU: "max 100000", V1_QUOTA: "100000", V1_PERIOD: "100000"}, 1, id="v2 unlimited, v1 limits"),
        pytest.param({PROC: "0::/job/step\n", "sys/fs/cgroup/job/cpu.max": "400000 100000"}, 4, id="v2 above its own"),
        pytest.param(
            {PROC: "3:cpuacct,cpu:/job\n", "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000", **{V1_PERIOD: "100000"}},
            None,
            id="no period",
        ),
        pytest.param({PROC: "0::/../other\n", V2_CPU: "200000 100000"}, 2, id="a path outside of what is seen"),
    ],
)
def test_cpus(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert cgroup.cpus(root_with(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no cgroup"),
        pytest.param({V2_MEMORY: "max\n"}, None, id="v2 unlimited"),
        pytest.param({V2_MEMORY: "1073741824\n"}, 1 << 30, id="v2"),
        pytest.param({V1_MEMORY: "9223372036854771712\n"}, None, id="v1 unlimited"),
        pytest.param({V1_MEMORY: "536870912\n"}, 1 << 29, id="v1"),
        pytest.param({V2_MEMORY: "max", V1_MEMORY: "536870912"}, 1 << 29, id="v2 unlimited, v1 limits"),
        pytest.param(
            {PROC: "0::/job/step\n", "sys/fs/cgroup/job/memory.max": "4096", "sys/fs/cgroup/job/step/memory.max": "8192"},
            4096,
            id="the least",
        ),
        pytest.param({PROC: "9:memory:/job\n0::/\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "4096"}, 4096, id="v1, its own"),
        pytest.param({PROC: "nonsense\n", V2_MEMORY: "4096"}, 4096, id="no cgroup file that we know"),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert cgroup.memory(root_with(tmp_path, files)) == expected
