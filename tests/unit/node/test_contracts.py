"""What each scheduler's environment comes to. The machine of `make_machine` is ``box`` at 10.0.0.5."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import contracts, discovery, env_file
from ray_serve_cai.node.discovery import NodePlan

Plan = Callable[..., NodePlan]
Env = dict[str, str]

KUBERAY, LWS, GROVE, NIM, VOLCANO = "KubeRay", "LeaderWorkerSet", "Grove", "NIM operator", "Volcano, ModelArts"
SAGEMAKER, AZURE, CAI, SLURM, TORCHRUN = "SageMaker", "Azure ML", "Cloudera AI", "Slurm", "torchrun"
DLC, KSERVE, MINE, NOTHING, EXPLICIT = "PAI DLC, PyTorchJob", "KServe, production-stack", "address is mine", "nothing", "explicit"


def lws(index: object, size: object = 3, leader: str = "web-0.web.team") -> Env:
    return {"LWS_LEADER_ADDRESS": leader, "LWS_WORKER_INDEX": str(index), "LWS_GROUP_SIZE": str(size)}


def grove(kind: str, index: object = 0, size: object = 3) -> Env:
    return {
        "GROVE_PCSG_NAME": "d-0-m", "GROVE_PCSG_INDEX": "0", "GROVE_PCLQ_NAME": f"d-0-m-0-{kind}", "GROVE_PCLQ_POD_INDEX": str(index),
        "GROVE_HEADLESS_SERVICE": "d-0.team.svc", "GROVE_PCSG_TEMPLATE_NUM_PODS": str(size),
    }  # fmt: skip


def nim(rank: object, leads: object, nodes: object = 2) -> Env:
    return {"NIM_NODE_RANK": str(rank), "NIM_LEADER_ROLE": str(leads), "NIM_NUM_COMPUTE_NODES": str(nodes), "LEADER_NAME": "nim-0"}


def volcano(index: object, hosts: str = "job-worker-0.job,job-worker-1.job") -> Env:
    return {"VC_WORKER_HOSTS": hosts, "VC_TASK_INDEX": str(index), "VC_WORKER_NUM": "2"}


def sagemaker(current: str, hosts: str = '["algo-2","algo-1"]') -> Env:
    return {"SM_HOSTS": hosts, "SM_CURRENT_HOST": current}


def azure(rank: object, size: object = 2, local: object = 0, each: object = 1) -> Env:
    return {
        "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000", "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local), "OMPI_COMM_WORLD_LOCAL_SIZE": str(each),
    }  # fmt: skip


def slurm(node: object, nodes: object = 2, listed: str = "gpu[08-09]") -> Env:
    return {"SLURM_JOB_ID": "7", "SLURM_NODEID": str(node), "SLURM_NNODES": str(nodes), "SLURM_JOB_NODELIST": listed, "SLURM_LOCALID": "0"}


def torchrun(group: object, local: object = 0, each: int = 8, groups: int = 2) -> Env:
    return {
        "MASTER_ADDR": "n0", "MASTER_PORT": "29500", "GROUP_RANK": str(group), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(each),
        "WORLD_SIZE": str(each * groups), "GROUP_WORLD_SIZE": str(groups),
    }  # fmt: skip


def dlc(rank: object, size: object = 2) -> Env:
    return {"MASTER_ADDR": "dlc-master-0", "MASTER_PORT": "23456", "RANK": str(rank), "WORLD_SIZE": str(size)}


def cai(own: str, master: str, **more: str) -> Env:
    return {"CDSW_ENGINE_ID": own, "CDSW_MASTER_ID": master, "CDSW_MASTER_IP": "10.0.0.9"} | more


WORKER_GROUP = {"RAY_NODE_TYPE_NAME": "gpus", "FQ_RAY_IP": "c-head-svc.team.svc", "RAY_IP": "c-head-svc", "RAY_PORT": "6379"}
HEADGROUP = {"RAY_NODE_TYPE_NAME": "headgroup", "RAY_ADDRESS": "127.0.0.1:6379", "RAY_PORT": "6379"}

TABLE: list[tuple[Env, str, str | None, str, int]] = [
    # environment, role, head, contract, nodes to wait for
    (HEADGROUP, "head", "10.0.0.5:6379", KUBERAY, 1),
    (HEADGROUP | {"RAY_NODE_TYPE_NAME": "HeadGroup"}, "head", "10.0.0.5:6379", KUBERAY, 1),
    (HEADGROUP | {"RAY_PORT": "7000"}, "head", "10.0.0.5:7000", KUBERAY, 1),
    (HEADGROUP | {"RSCAI_MIN_NODES": "4"}, "head", "10.0.0.5:6379", KUBERAY, 4),
    (WORKER_GROUP, "worker", "c-head-svc.team.svc:6379", KUBERAY, 1),
    (WORKER_GROUP | {"FQ_RAY_IP": ""}, "worker", "c-head-svc:6379", KUBERAY, 1),
    (WORKER_GROUP | {"RAY_PORT": "7000"}, "worker", "c-head-svc.team.svc:7000", KUBERAY, 1),
    (WORKER_GROUP | {"RAY_PORT": ""}, "worker", "c-head-svc.team.svc:6379", KUBERAY, 1),
    (WORKER_GROUP | {"RSCAI_HEAD_ADDRESS": "other:7"}, "worker", "other:7", KUBERAY, 1),
    ({"RAY_NODE_TYPE_NAME": "gpus", "RAY_ADDRESS": "svc:6380"}, "worker", "svc:6380", KUBERAY, 1),
    ({"KUBERAY_GEN_RAY_START_CMD": "ray start --head  --num-cpus=1 "}, "head", "10.0.0.5:6379", KUBERAY, 1),
    ({"KUBERAY_GEN_RAY_START_CMD": "ray start --address=svc:6379", "FQ_RAY_IP": "svc"}, "worker", "svc:6379", KUBERAY, 1),
    ({"KUBERAY_GEN_RAY_START_CMD": "ray start --head --resources='\"{"}, "head", "10.0.0.5:6379", KUBERAY, 1),
    ({"RAY_USAGE_STATS_KUBERAY_IN_USE": "1", "RAY_ADDRESS": "127.0.0.1:6379"}, "head", "10.0.0.5:6379", KUBERAY, 1),
    ({"RAY_USAGE_STATS_KUBERAY_IN_USE": "1", "RAY_IP": "svc"}, "worker", "svc:6379", KUBERAY, 1),
    ({"FQ_RAY_IP": "svc", "RAY_IP": "svc"}, "single", None, NOTHING, 1),  # an init container's
    (lws(0), "head", "web-0.web.team:6379", LWS, 3),
    (lws(1), "worker", "web-0.web.team:6379", LWS, 3),
    (lws(2), "worker", "web-0.web.team:6379", LWS, 3),
    (lws(0, 1), "single", None, NOTHING, 1),
    (lws(0, 1) | {"RSCAI_HEAD_ADDRESS": "far"}, "worker", "far:6379", MINE, 1),
    (lws(1) | {"RSCAI_HEAD_ADDRESS": "far:7000"}, "worker", "far:7000", LWS, 3),
    (lws(0) | {"RSCAI_HEAD_ADDRESS": "service"}, "head", "service:6379", LWS, 3),
    (lws(1) | {"RSCAI_MIN_NODES": "2"}, "worker", "web-0.web.team:6379", LWS, 2),
    (lws(1, ""), "worker", "web-0.web.team:6379", LWS, 1),
    (lws(1, leader="10.0.0.9"), "worker", "10.0.0.9:6379", LWS, 3),
    (lws(1, leader="[fd00::9]:7000"), "worker", "[fd00::9]:7000", LWS, 3),
    (lws(""), "worker", "web-0.web.team:6379", LWS, 3),
    (lws("", leader="box.web.team"), "head", "box.web.team:6379", LWS, 3),
    (lws(" 1 "), "worker", "web-0.web.team:6379", LWS, 3),
    ({"LWS_WORKER_INDEX": "0", "LWS_GROUP_SIZE": "2"}, "head", None, LWS, 2),
    ({"LWS_WORKER_INDEX": "1", "RAY_HEAD_ADDRESS": "far"}, "worker", "far:6379", LWS, 1),
    ({"LWS_GROUP_SIZE": "2"}, "single", None, NOTHING, 1),
    (lws(1) | {"RSCAI_ROLE": "single"}, "single", None, EXPLICIT, 1),
    (lws(1) | {"RSCAI_ROLE": "head"}, "head", None, EXPLICIT, 1),
    (lws(1) | {"RSCAI_ROLE": "auto"}, "worker", "web-0.web.team:6379", LWS, 3),
    (lws(0) | {"MODE": "HEAD"}, "head", "web-0.web.team:6379", EXPLICIT, 3),
    (lws(1) | {"MODE": "worker"}, "worker", "web-0.web.team:6379", EXPLICIT, 3),
    (lws(9) | {"RSCAI_ROLE": "single"}, "single", None, EXPLICIT, 1),  # nothing else is looked at
    (grove("ldr"), "head", "d-0-m-0-ldr-0.d-0.team.svc:6379", GROVE, 3),
    (grove("wkr", 0), "worker", "d-0-m-0-ldr-0.d-0.team.svc:6379", GROVE, 3),
    (grove("wkr", 1), "worker", "d-0-m-0-ldr-0.d-0.team.svc:6379", GROVE, 3),
    (grove("leader"), "head", "d-0-m-0-leader-0.d-0.team.svc:6379", GROVE, 3),
    (grove("worker", 1), "worker", "d-0-m-0-leader-0.d-0.team.svc:6379", GROVE, 3),
    (grove("decode", 0), "head", "d-0-m-0-decode-0.d-0.team.svc:6379", GROVE, 3),
    (grove("decode", 2), "worker", "d-0-m-0-decode-0.d-0.team.svc:6379", GROVE, 3),
    (grove("ldr", 0, 1), "single", None, NOTHING, 1),
    (grove("wkr", 0, ""), "worker", "d-0-m-0-ldr-0.d-0.team.svc:6379", GROVE, 1),
    (grove("ldr") | {"GROVE_PCSG_NAME": ""}, "single", None, NOTHING, 1),
    (nim(0, 1), "head", "nim-0:6379", NIM, 2),
    (nim(1, 0), "worker", "nim-0:6379", NIM, 2),
    (nim(1, 0) | {"LWS_NAME": "nim", "NAMESPACE": "team"}, "worker", "nim-0.nim.team:6379", NIM, 2),
    (nim("", "true"), "head", "nim-0:6379", NIM, 2),
    (nim("", "FALSE"), "worker", "nim-0:6379", NIM, 2),
    (nim(1, ""), "worker", "nim-0:6379", NIM, 2),
    (nim(0, 1, 1), "single", None, NOTHING, 1),
    (nim(0, 1) | {"LEADER_NAME": ""}, "head", None, NIM, 2),
    (nim(0, 1) | lws(0, 2), "head", "web-0.web.team:6379", LWS, 2),
    (nim(1, 0) | lws(1, 2), "worker", "web-0.web.team:6379", LWS, 2),
    ({"NIM_MULTI_NODE": "1", "NIM_NUM_COMPUTE_NODES": "2"}, "single", None, NOTHING, 1),
    (volcano(0), "head", "job-worker-0.job:6379", VOLCANO, 2),
    (volcano(1), "worker", "job-worker-0.job:6379", VOLCANO, 2),
    (volcano(1, "a , b ,"), "worker", "a:6379", VOLCANO, 2),
    (volcano(0, "a"), "single", None, NOTHING, 1),
    ({"VC_WORKER_HOSTS": "a,b", "VK_TASK_INDEX": "1"}, "worker", "a:6379", VOLCANO, 2),
    (volcano(""), "single", None, NOTHING, 1),
    (volcano(0, "a.job,box.job") | {"VC_MASTER_HOSTS": "m.job"}, "worker", "m.job:6379", VOLCANO, 3),
    (volcano(0, "a.job,b.job") | {"VC_MASTER_HOSTS": "box.job"}, "head", "box.job:6379", VOLCANO, 3),
    (volcano(1, "box.job,b.job") | {"VC_PS_HOSTS": "ps.job"}, "head", "box.job:6379", VOLCANO, 2),
    (volcano(0) | {"VC_PS_HOSTS": "box.job"}, "single", None, NOTHING, 1),
    (sagemaker("algo-1"), "head", "algo-1:6379", SAGEMAKER, 2),
    (sagemaker("algo-2"), "worker", "algo-1:6379", SAGEMAKER, 2),
    (sagemaker("algo-1", '["algo-1"]'), "single", None, NOTHING, 1),
    ({"SM_HOSTS": '["algo-1","algo-2"]'}, "single", None, NOTHING, 1),
    (azure(0), "head", "10.0.0.4:6379", AZURE, 2),
    (azure(1), "worker", "10.0.0.4:6379", AZURE, 2),
    (azure(8, 16, 0, 8), "worker", "10.0.0.4:6379", AZURE, 2),
    (azure(9, 16, 1, 8), "idle", None, AZURE, 1),
    (azure(0, 8, 0, 8), "single", None, NOTHING, 1),
    (azure(2, "", 0, ""), "worker", "10.0.0.4:6379", AZURE, 1),
    (azure(0, each="") | {"AZUREML_NODE_COUNT": "3"}, "head", "10.0.0.4:6379", AZURE, 3),
    ({"AZ_BATCHAI_MPI_MASTER_NODE": "10.0.0.4", "OMPI_COMM_WORLD_RANK": "0"}, "head", "10.0.0.4:6379", AZURE, 1),
    ({"AZ_BATCH_MASTER_NODE": "10.0.0.4:6000", "NODE_RANK": "1"}, "worker", "10.0.0.4:6379", AZURE, 1),
    ({"AZ_BATCH_MASTER_NODE": "10.0.0.4:6000"}, "single", None, NOTHING, 1),
    ({"AZ_BATCHAI_JOB_MASTER_NODE_IP": "10.0.0.4", "AZUREML_CR_NODE_RANK": "1", "AZUREML_NODE_COUNT": "2"}, "worker", "10.0.0.4:6379", AZURE, 2),
    (cai("w1", "m1"), "worker", "10.0.0.9:6379", CAI, 1),
    (cai("m1", "m1"), "head", "10.0.0.9:6379", CAI, 1),
    (cai("w1", "m1", CDSW_MASTER_IP="", CML_MASTER_IP="10.0.0.8"), "worker", "10.0.0.8:6379", CAI, 1),
    (cai("app", ""), "single", None, NOTHING, 1),
    (cai("app", "") | {"RSCAI_HEAD_ADDRESS": "10.0.0.7"}, "worker", "10.0.0.7:6379", MINE, 1),
    (slurm(0), "head", "gpu08:6379", SLURM, 2),
    (slurm(1), "worker", "gpu08:6379", SLURM, 2),
    (slurm(0, 1, "gpu08"), "single", None, NOTHING, 1),
    (slurm(3, 4, "login,gpu[1-3]"), "worker", "login:6379", SLURM, 4),
    (slurm(1) | {"SLURM_LOCALID": "3"}, "idle", None, SLURM, 1),
    (slurm(0, 1, "gpu08") | {"SLURM_LOCALID": "1"}, "idle", None, SLURM, 1),
    (slurm(1, "") | {"SLURM_STEP_NODELIST": "gpu[3-5]"}, "worker", "gpu3:6379", SLURM, 3),
    (slurm(0, 8) | {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[3,7]"}, "head", "gpu3:6379", SLURM, 2),
    ({"SLURM_JOB_ID": "7", "SLURM_NODEID": "1", "SLURM_NNODES": "2", "RSCAI_HEAD_ADDRESS": "x"}, "worker", "x:6379", SLURM, 2),
    ({"SLURM_NODEID": "1", "SLURM_NNODES": "2"}, "single", None, NOTHING, 1),
    ({"SLURM_JOB_ID": "7"}, "single", None, NOTHING, 1),
    (torchrun(0), "head", "n0:6379", TORCHRUN, 2),
    (torchrun(1), "worker", "n0:6379", TORCHRUN, 2),
    (torchrun(1, 5), "idle", None, TORCHRUN, 1),
    (torchrun(0, groups=1), "single", None, NOTHING, 1),
    (torchrun(0, 1, groups=1), "idle", None, TORCHRUN, 1),
    (slurm(1) | torchrun(1), "worker", "gpu08:6379", SLURM, 2),
    (slurm(1) | torchrun(1, 2), "idle", None, TORCHRUN, 1),  # srun starts one torchrun on each node, and that a process for each GPU
    ({"MASTER_ADDR": "n0", "NODE_RANK": "1"}, "worker", "n0:6379", TORCHRUN, 1),
    ({"MASTER_ADDR": "n0", "NODE_RANK": "0", "NNODES": "2"}, "head", "n0:6379", TORCHRUN, 2),
    ({"MASTER_ADDR": "n0", "LOCAL_RANK": "0", "RANK": "8", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"}, "worker", "n0:6379", TORCHRUN, 3),
    ({"MASTER_ADDR": "n0", "LOCAL_RANK": "0", "RANK": "8"}, "worker", "n0:6379", TORCHRUN, 1),
    ({"MASTER_ADDR": "n0", "LOCAL_RANK": "0", "RANK": "0"}, "head", "n0:6379", TORCHRUN, 1),
    ({"MASTER_ADDR": "n0", "LOCAL_RANK": "0"}, "single", None, NOTHING, 1),
    ({"MASTER_ADDR": "n0"}, "single", None, NOTHING, 1),
    ({"GROUP_RANK": "1", "LOCAL_RANK": "0"}, "single", None, NOTHING, 1),
    (dlc(0), "head", "dlc-master-0:6379", DLC, 2),
    (dlc(1), "worker", "dlc-master-0:6379", DLC, 2),
    (dlc(0, 1), "single", None, NOTHING, 1),
    (dlc(1, ""), "worker", "dlc-master-0:6379", DLC, 1),
    ({"RANK": "1", "WORLD_SIZE": "2"}, "single", None, NOTHING, 1),
    ({"RAY_ADDRESS": "127.0.0.1:6379", "RAY_NODE_COUNT": "2"}, "head", "127.0.0.1:6379", KSERVE, 2),
    ({"RAY_ADDRESS": "isvc-head:6379", "RAY_NODE_COUNT": "2"}, "worker", "isvc-head:6379", KSERVE, 2),
    ({"RAY_ADDRESS": "10.0.0.9", "EXPECTED_NODES": "3", "RAY_PORT": "7000"}, "worker", "10.0.0.9:7000", KSERVE, 3),
    ({"RAY_ADDRESS": "10.0.0.9", "EXPECTED_NODES": "3", "VLLM_HOST_IP": "10.0.0.9"}, "head", "10.0.0.9:6379", KSERVE, 3),
    ({"RAY_ADDRESS": "auto", "EXPECTED_NODES": "2"}, "single", None, NOTHING, 1),
    ({"RAY_ADDRESS": "ray://x:10001", "EXPECTED_NODES": "2"}, "single", None, NOTHING, 1),
    ({"RAY_ADDRESS": "local", "RAY_NODE_COUNT": "2"}, "head", "10.0.0.5:6379", KSERVE, 2),
    ({"RAY_ADDRESS": "x:6379"}, "single", None, NOTHING, 1),
    ({"RAY_ADDRESS": "x:6379", "RAY_NODE_COUNT": "1"}, "single", None, NOTHING, 1),
    ({"RAY_NODE_COUNT": "2", "RAY_PORT": "6379"}, "head", "10.0.0.5:6379", KSERVE, 2),
    ({"RAY_NODE_COUNT": "2", "HEAD_SVC": "m-head-1"}, "worker", "m-head-1:6379", KSERVE, 2),
    ({"RAY_NODE_COUNT": "2", "HEAD_SVC": "m-head-1", "POD_NAMESPACE": "team"}, "worker", "m-head-1.team:6379", KSERVE, 2),
    ({"RAY_NODE_COUNT": "1"}, "single", None, NOTHING, 1),
    ({"EXPECTED_NODES": "2"}, "single", None, NOTHING, 1),
    (HEADGROUP | {"EXPECTED_NODES": "2"}, "head", "10.0.0.5:6379", KUBERAY, 2),
    (WORKER_GROUP | {"RAY_ADDRESS": "c-head-svc.team.svc:6379", "EXPECTED_NODES": "2"}, "worker", "c-head-svc.team.svc:6379", KUBERAY, 2),
]  # fmt: skip


@pytest.mark.parametrize(("env", "role", "head", "rule", "nodes"), TABLE, ids=[f"{row[3]} {row[0]}" for row in TABLE])
def test_places(make_plan: Plan, env: Env, role: str, head: str | None, rule: str, nodes: int) -> None:
    plan = make_plan(env)
    assert (plan.role, plan.head and str(plan.head), plan.rule, plan.min_nodes) == (role, head, rule, nodes)
    assert plan.variables or rule == NOTHING
    assert plan.variables.keys() <= env.keys()


RECORDED: dict[str, tuple[str, str | None, str, int]] = {
    # file in environments/, which names its source: role, head, contract, nodes to wait for
    "azureml-k8s-worker0": ("single", None, NOTHING, 1),
    "azureml-mpi-old-worker-process": ("idle", None, AZURE, 1),
    "azureml-mpi-worker-process": ("idle", None, AZURE, 1),
    "azureml-pytorch-node1": ("worker", "10.0.0.4:6379", TORCHRUN, 1),
    "baidu-aihc-master": ("head", "pytorch-test-master-0:6379", DLC, 3),
    "baidu-aihc-worker0": ("worker", "pytorch-test-master-0:6379", DLC, 3),
    "baidu-aihc-worker1": ("worker", "pytorch-test-master-0:6379", DLC, 3),
    "cml-application": ("single", None, NOTHING, 1),
    "cml-master-own-id": ("head", None, CAI, 1),
    "cml-master": ("single", None, NOTHING, 1),
    "cml-worker": ("worker", "10.254.21.79:6379", CAI, 1),
    "grove-dynamo-leader": ("head", "my-dgd-0-test-service-0-test-service-ldr-0.my-dgd-0.default.svc.cluster.local:6379", GROVE, 3),
    "grove-dynamo-worker": ("worker", "my-dgd-0-test-service-0-test-service-ldr-0.my-dgd-0.default.svc.cluster.local:6379", GROVE, 3),
    "grove-dynamo-worker2": ("worker", "my-dgd-0-test-service-0-test-service-ldr-0.my-dgd-0.default.svc.cluster.local:6379", GROVE, 3),
    "grove-leader": ("head", "env-demo-pcsg-0-model-instance-0-leader-0.env-demo-pcsg-0.default.svc.cluster.local:6379", GROVE, 4),
    "grove-worker": ("worker", "env-demo-pcsg-0-model-instance-0-leader-0.env-demo-pcsg-0.default.svc.cluster.local:6379", GROVE, 4),
    "grove-standalone": ("single", None, NOTHING, 1),
    "kserve-early-head": ("single", None, NOTHING, 1),  # of a development version, which counts no nodes
    "kserve-head": ("head", "10.0.0.5:6379", KSERVE, 2),
    "kserve-worker": ("worker", "huggingface-llama3-head-1.kserve-test:6379", KSERVE, 2),
    "kuberay-head": ("head", "10.0.0.5:6379", KUBERAY, 1),
    "kuberay-worker": ("worker", "raycluster-sample-head-svc.default.svc.cluster.local:6379", KUBERAY, 1),
    "kuberay-init-container": ("single", None, NOTHING, 1),
    "kuberay-v1.0-head": ("head", "10.0.0.5:6379", KUBERAY, 1),
    "kuberay-v1.0-worker": ("worker", "raycluster-sample-head-svc.default.svc.cluster.local:6379", KUBERAY, 1),
    "lws-leader": ("head", "test-sample-0.test-sample.default:6379", LWS, 3),
    "lws-worker": ("worker", "test-sample-0.test-sample.default:6379", LWS, 3),
    "lws-v0.5-any": ("worker", "test-sample-0.test-sample.default:6379", LWS, 3),
    "modelarts-worker0": ("head", f"{(job := 'modelarts-job-a0978141-worker-0.ma-job-a0978141.ns.svc.cluster.local')}:6379", VOLCANO, 2),
    "modelarts-worker1": ("worker", f"{job}:6379", VOLCANO, 2),
    "nim-leader": ("head", "test-nimservice-lws-0.test-nimservice-lws.default:6379", LWS, 2),
    "nim-worker": ("worker", "test-nimservice-lws-0.test-nimservice-lws.default:6379", LWS, 2),
    "pai-dlc-master": ("head", "dlc18isgeayd0000-master-0:6379", DLC, 3),
    "pai-dlc-worker0": ("worker", "dlc18isgeayd0000-master-0:6379", DLC, 3),
    "pai-dlc-worker1": ("worker", "dlc18isgeayd0000-master-0:6379", DLC, 3),
    "production-stack-head": ("head", "10.0.0.5:6379", KUBERAY, 2),
    "production-stack-worker": ("worker", "vllm-test-model-raycluster-head-svc.default.svc.cluster.local:6379", KUBERAY, 1),
    "sagemaker-algo-1": ("head", "algo-1:6379", SAGEMAKER, 2),
    "sagemaker-algo-2": ("worker", "algo-1:6379", SAGEMAKER, 2),
    "sagemaker-single": ("single", None, NOTHING, 1),
    "sagemaker-v3-algo-1": ("head", "algo-1:6379", SAGEMAKER, 3),
    "sagemaker-v3-algo-3": ("worker", "algo-1:6379", SAGEMAKER, 3),
    "slurm-batch-node0": ("head", "gnode10:6379", SLURM, 4),
    "slurm-one-node-step-in-two-node-job": ("single", None, NOTHING, 1),
    "slurm-salloc-no-step": ("single", None, NOTHING, 1),
    "slurm-srun-node0-task0": ("head", "node1:6379", SLURM, 2),
    "slurm-srun-node0-task1": ("idle", None, SLURM, 1),
    "slurm-srun-node1-task0": ("worker", "node1:6379", SLURM, 2),
    "slurm-srun-node1-task1": ("idle", None, SLURM, 1),
    "swarm-task2": ("single", None, NOTHING, 1),
    "torchrun-node0-local0": ("head", "node0.example.com:6379", TORCHRUN, 2),
    "torchrun-node0-local1": ("idle", None, TORCHRUN, 1),
    "torchrun-node1-local0": ("worker", "node0.example.com:6379", TORCHRUN, 2),
    "torchrun-node1-local3": ("idle", None, TORCHRUN, 1),
    "volcano-ps0": ("single", None, NOTHING, 1),
    "volcano-pytorch-master": ("head", "pytorch-job-master-0.pytorch-job:6379", VOLCANO, 3),
    "volcano-pytorch-worker0": ("worker", "pytorch-job-master-0.pytorch-job:6379", VOLCANO, 3),
    "volcano-pytorch-worker1": ("worker", "pytorch-job-master-0.pytorch-job:6379", VOLCANO, 3),
    "volcano-worker0": ("head", "tensorflow-dist-mnist-worker-0.tensorflow-dist-mnist:6379", VOLCANO, 2),
    "volcano-worker1": ("worker", "tensorflow-dist-mnist-worker-0.tensorflow-dist-mnist:6379", VOLCANO, 2),
}
NAMES = {
    # Volcano names no pod's task: the host name tells it
    "volcano-ps0": "tensorflow-dist-mnist-ps-0",
    "volcano-worker0": "tensorflow-dist-mnist-worker-0",
    "volcano-worker1": "tensorflow-dist-mnist-worker-1",
    "volcano-pytorch-master": "pytorch-job-master-0",
    "volcano-pytorch-worker0": "pytorch-job-worker-0",
    "volcano-pytorch-worker1": "pytorch-job-worker-1",
}
ENVIRONMENTS = Path(__file__).parent / "environments"
BEYOND_ITS_SIZE = "lws-worker-index-outside-size"


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_environments(make_plan: Plan, name: str) -> None:
    file = ENVIRONMENTS / f"{name}.env"
    assert file.read_text().startswith("# source: ")
    names = {"names": frozenset({NAMES[name]})} if name in NAMES else {}
    plan = make_plan(dict(env_file.read(file, {})), **names)
    assert (plan.role, plan.head and str(plan.head), plan.rule, plan.min_nodes) == RECORDED[name]


def test_all_recorded_environments_are_expected(make_plan: Plan) -> None:
    assert {file.stem for file in ENVIRONMENTS.glob("*.env")} == RECORDED.keys() | {BEYOND_ITS_SIZE}
    with pytest.raises(UsageError, match="LWS_WORKER_INDEX is 3 but LWS_GROUP_SIZE is 2"):
        make_plan(dict(env_file.read(ENVIRONMENTS / f"{BEYOND_ITS_SIZE}.env", {})))


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        (lws("x"), ["LWS_WORKER_INDEX is 'x'", "whole number from 0"]),
        (lws(3), ["LWS_WORKER_INDEX is 3 but LWS_GROUP_SIZE is 3", "run from 0 to 2"]),
        (lws(-1), ["LWS_WORKER_INDEX is '-1'"]),
        (lws(1, 0), ["LWS_GROUP_SIZE is '0'", "from 1"]),
        (lws(1, leader="web/0"), ["LWS_LEADER_ADDRESS is 'web/0'", "host or host:port"]),
        ({"LWS_WORKER_INDEX": "1"}, ["this is worker 1 (LWS_WORKER_INDEX=1), but no head is named", "set RSCAI_HEAD_ADDRESS"]),
        ({"RAY_NODE_TYPE_NAME": "gpus"}, ["a worker (RAY_NODE_TYPE_NAME=gpus), but no head", "RSCAI_HEAD_ADDRESS"]),
        (HEADGROUP | {"RAY_PORT": "x"}, ["RAY_PORT is 'x'"]),
        (nim(1, 1), ["NIM_LEADER_ROLE is '1' and NIM_NODE_RANK is 1", "leader is rank 0", "RSCAI_ROLE"]),
        (nim(0, "maybe"), ["NIM_LEADER_ROLE is 'maybe'"]),
        (volcano(2), ["VC_TASK_INDEX is 2 but VC_WORKER_HOSTS is 2"]),
        (volcano(0, ","), ["VC_WORKER_HOSTS is ','", "names no hosts"]),
        (sagemaker("algo-3"), ["'algo-3'", "not among those of SM_HOSTS: algo-1, algo-2"]),
        (sagemaker("algo-1", "algo-1"), ["SM_HOSTS is 'algo-1'", "no JSON"]),
        (sagemaker("algo-1", "[]"), ["SM_HOSTS names no hosts"]),
        (sagemaker("algo-1", "[1]"), ["SM_HOSTS names no hosts"]),
        (slurm(1, 2, "gpu[1-"), ["SLURM_JOB_NODELIST is 'gpu[1-'", "gpu[01-04]"]),
        (slurm(1) | {"SLURM_JOB_NODELIST": ""}, ["this is worker 1", "no head is named"]),
        (torchrun("one"), ["GROUP_RANK is 'one'"]),
        (dlc(2), ["RANK is 2 but WORLD_SIZE is 2"]),
        (cai("w", "m", CDSW_MASTER_IP=""), ["a worker (CDSW_ENGINE_ID=w, CDSW_MASTER_ID=m), but no head"]),
        ({"CDSW_IP_ADDRESS": "pod"}, ["CDSW_IP_ADDRESS is 'pod'", "IP address"]),
        ({"VLLM_HOST_IP": "pod"}, ["VLLM_HOST_IP is 'pod'"]),
        (lws(1) | slurm(0), ["LeaderWorkerSet says that this is worker 1 (LWS_WORKER_INDEX=1", "but Slurm says the head (SLURM_NODEID=0", "set RSCAI_ROLE", "SLURM_JOB_NODELIST=gpu[08-09]"]),
        (lws(1) | dlc(2, 3), ["is worker 1", "says worker 2 (RANK=2"]),
        (lws(1) | {"MODE": "head"}, ["explicit says that this is the head (MODE=head), but LeaderWorkerSet says worker 1"]),
        (nim(0, 1) | lws(1, 2), ["LeaderWorkerSet says that this is worker 1", "but NIM operator says the head"]),
        (HEADGROUP | dlc(1), ["KubeRay says that this is the head", "says worker 1"]),
    ],
)  # fmt: skip
def test_what_cannot_be(make_plan: Plan, env: Env, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(env)
    for part in parts:
        assert part in str(caught.value)


def test_the_file_that_sagemaker_writes(make_plan: Plan) -> None:
    written = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"], "network_interface_name": "eth0"}
    plan = make_plan({}, sagemaker=json.dumps(written))
    assert (plan.role, str(plan.head), plan.rule, plan.min_nodes) == ("worker", "algo-1:6379", SAGEMAKER, 2)
    assert plan.variables == {"/opt/ml/input/config/resourceconfig.json": "algo-2"}
    assert make_plan(sagemaker("algo-1"), sagemaker=json.dumps(written)).role == "head"  # variables precede it
    for broken in ("{", "[]", '{"hosts": "algo-1"}', '{"hosts": ["algo-1", "algo-2"]}'):
        with pytest.raises(UsageError, match=r"resourceconfig\.json"):
            make_plan({}, sagemaker=broken)


def test_what_kuberay_says_of_resources(make_plan: Plan) -> None:
    line = "ray start  --address=svc:6379  --block  --memory=1073741824  --num-cpus 3 --num-gpus=4 "
    env = WORKER_GROUP | {"KUBERAY_GEN_RAY_START_CMD": line}
    resources = make_plan(env).resources
    assert (resources.cpus, resources.gpus, resources.memory) == (3, 4, 1 << 30)
    resources = make_plan(env | {"RSCAI_NUM_CPUS": "1", "RSCAI_NUM_GPUS": "0", "RSCAI_MEMORY_BYTES": str(1 << 31)}).resources
    assert (resources.cpus, resources.gpus, resources.memory) == (1, 0, 1 << 31)
    resources = make_plan(env | {"KUBERAY_GEN_RAY_START_CMD": "ray start --num-gpus=all --num-cpus"}).resources
    assert (resources.cpus, resources.gpus) == (4, 0)


@pytest.mark.parametrize("name", ["RSCAI_NODE_IP", "RAY_NODE_IP", "VLLM_HOST_IP", "CDSW_IP_ADDRESS"])
def test_whoever_gives_it_the_node_has_one_address(make_plan: Plan, name: str) -> None:
    assert make_plan(lws(1) | {name: "10.7.7.7"}).node_ip == "10.7.7.7"


def test_each_contract_is_in_the_table() -> None:
    names = [one.name for one in contracts.CONTRACTS]
    assert len(set(names)) == len(names)
    assert (names[0], names[-1]) == (EXPLICIT, NOTHING)
    assert {row[3] for row in TABLE} == set(names)


ALL = sorted({name for one in contracts.CONTRACTS for name in one.variables} | {name for row in TABLE for name in row[0]})
VALUES = (
    st.sampled_from(["head", "worker", "headgroup", "10.0.0.5", "10.0.0.9:6379", "box", "a[1-2]", "a,b", '["a","b"]', "true", "", "d-wkr"])
    | st.integers(-1, 9).map(str)
    | st.text(max_size=20)
)


@given(st.dictionaries(st.sampled_from(ALL), VALUES, max_size=12), st.just("") | st.text(max_size=20))
def test_any_environment_is_a_plan_or_a_typed_error(make_plan: Plan, env: Env, written: str) -> None:
    try:
        plan = make_plan(env, sagemaker=written)
    except UsageError:
        return
    assert plan.role in ("head", "worker", "single", "idle")
    assert plan.head is not None or plan.role != "worker"
    assert json.loads(discovery.as_json(plan, []))["rule"] == plan.rule


@given(st.data(), st.integers(2, 12))
def test_a_group_has_one_head_that_all_others_find(make_plan: Plan, data: st.DataObject, size: int) -> None:
    hosts = ",".join(f"w{number}.job" for number in range(size))
    made: list[Callable[[int], dict[str, Any]]] = [
        lambda rank: lws(rank, size),
        lambda rank: nim(rank, int(rank == 0), size),
        lambda rank: volcano(rank, hosts),
        lambda rank: azure(rank, size),
        lambda rank: slurm(rank, size, f"gpu[001-{size:03}]"),
        lambda rank: torchrun(rank, groups=size),
        lambda rank: dlc(rank, size),
        lambda rank: sagemaker(f"h{rank:02}", json.dumps([f"h{number:02}" for number in range(size)])),
    ]
    contract = data.draw(st.sampled_from(made))
    plans = [make_plan(contract(rank)) for rank in range(size)]
    assert [plan.role for plan in plans] == ["head"] + ["worker"] * (size - 1)
    assert len({str(plan.head) for plan in plans}) == 1
    assert {plan.min_nodes for plan in plans} == {size}
