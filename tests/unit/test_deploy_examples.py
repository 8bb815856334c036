"""The manifests and batch scripts of docs/examples come to the roles that they are meant for, and agree with the launcher.

What a controller adds to a pod is written here as its source has it: LeaderWorkerSet 0.9.0, pkg/utils/pod/pod_utils.go, AddLWSVariables;
KubeRay 1.7.0, ray-operator/controllers/ray/common/pod.go, setContainerEnvVars and generateRayStartCommand. No cluster is asked.
"""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ray_serve_cai import config
from ray_serve_cai.config import Config
from ray_serve_cai.engines.registry import get_registry
from ray_serve_cai.node import env_file, secret_files, supervisor
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.ports import Ports

pytestmark = pytest.mark.issue(6)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
DEMOS = {path: path.with_stem(path.stem.removesuffix("-demo")) for path in MANIFESTS if path.stem.endswith("-demo")}
"""A manifest that runs the demo model on CPUs -> the one that it is made after."""
SCRIPTS = sorted((EXAMPLES / "slurm").glob("*.sbatch"))
SCHEMAS = json.loads((Path(__file__).parent / "deploy/crds.json").read_text(encoding="utf-8"))
NAMESPACE = "team"

Plan = Callable[..., NodePlan]
Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as its controller makes it: labels, the spec of its template, and its container's environment."""

    role: str
    labels: dict[str, str]
    spec: Object
    env: dict[str, str]

    @property
    def container(self) -> Object:
        (only,) = self.spec["containers"]
        return dict(only)

    @property
    def mounts(self) -> dict[str, Object]:
        """Path in the container -> the volume behind it, and whether it is read only."""
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        return {one["mountPath"]: volumes[one["name"]] | {"readOnly": one.get("readOnly", False)} for one in self.container["volumeMounts"]}

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    def mounted(self, path: str) -> Object:
        """The mount that a path is in."""
        return next(volume for mount, volume in self.mounts.items() if Path(path).is_relative_to(mount))


def objects(manifest: Path) -> dict[str, Object]:
    """Kind -> object; no manifest has two of a kind."""
    found = list(yaml.safe_load_all(manifest.read_text(encoding="utf-8")))
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


def own_environment(spec: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in spec["containers"][0]["env"]}


def of_leader_worker_set(made: Object) -> Iterator[Pod]:
    name, group = made["metadata"]["name"], made["spec"]["leaderWorkerTemplate"]
    for index in range(group["size"]):
        spec = group["workerTemplate" if index else "leaderTemplate"]["spec"]
        added = {
            "LWS_LEADER_ADDRESS": f"{name}-0.{name}.{NAMESPACE}",
            "LWS_GROUP_SIZE": str(group["size"]),
            "LWS_WORKER_INDEX": str(index),
        }
        labels = {
            "leaderworkerset.sigs.k8s.io/name": name,
            "leaderworkerset.sigs.k8s.io/group-index": "0",
            "leaderworkerset.sigs.k8s.io/worker-index": str(index),
        }
        yield Pod("worker" if index else "head", labels, spec, own_environment(spec) | added)


def of_ray_cluster(made: Object) -> Iterator[Pod]:
    name, head = made["metadata"]["name"], made["spec"]["headGroupSpec"]
    service = f"{name}-head-svc"
    fqdn = f"{service}.{NAMESPACE}.svc.cluster.local"
    for group in (head, *made["spec"]["workerGroupSpecs"]):
        leads = group is head
        spec = group["template"]["spec"]
        start = {"block": "true", "dashboard-agent-listen-port": "52365", "metrics-export-port": "8080"} | group["rayStartParams"]
        start |= {"dashboard-host": "0.0.0.0"} if leads else {"address": f"{fqdn}:6379"}
        resources = spec["containers"][0]["resources"]
        start |= {"num-cpus": resources["requests"]["cpu"]}
        start |= {"num-gpus": gpus} if (gpus := resources["limits"].get("nvidia.com/gpu")) else {}
        start["memory"] = str(int(resources["limits"]["memory"].removesuffix("Gi")) << 30)
        flags = "".join(f" --{flag} " if value == "true" else f" --{flag}={value} " for flag, value in sorted(start.items()))
        added = {
            "RAY_CLUSTER_NAME": name,
            "RAY_NODE_TYPE_NAME": "headgroup" if leads else group["groupName"],
            "KUBERAY_GEN_RAY_START_CMD": f"ray start {'--head ' if leads else ''}{flags}",
            "RAY_PORT": "6379",
            "RAY_ADDRESS": f"{'127.0.0.1' if leads else fqdn}:6379",
            "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        }
        added |= {} if leads else {"FQ_RAY_IP": fqdn, "RAY_IP": service}
        labels = {"ray.io/cluster": name, "ray.io/node-type": "head" if leads else "worker"}
        for _ in range(1 if leads else group["replicas"]):
            yield Pod("head" if leads else "worker", labels, spec, own_environment(spec) | added)


CONTROLLERS = {"LeaderWorkerSet": of_leader_worker_set, "RayCluster": of_ray_cluster}


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def manifest(request: pytest.FixtureRequest) -> dict[str, Object]:
    return objects(request.param)


def custom(manifest: dict[str, Object]) -> Object:
    return next(manifest[kind] for kind in CONTROLLERS if kind in manifest)


def pods(manifest: dict[str, Object]) -> list[Pod]:
    made = custom(manifest)
    return list(CONTROLLERS[made["kind"]](made))


def served(manifest: dict[str, Object]) -> Config:
    return config.parse(yaml.safe_load(manifest["ConfigMap"]["data"]["config.yaml"]), "config.yaml")


def gpus_of(pod: Pod) -> int:
    return int(pod.container["resources"]["limits"].get("nvidia.com/gpu", 0))


def violations(made: Object) -> list[str]:
    schema = SCHEMAS["kinds"][made["kind"]] | {"$defs": SCHEMAS["$defs"]}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(made)]


def test_the_examples_are_there() -> None:
    manifests = ["kuberay-demo.yaml", "kuberay.yaml", "leaderworkerset-demo.yaml", "leaderworkerset.yaml"]
    assert [path.name for path in (*MANIFESTS, *SCRIPTS)] == [*manifests, "apptainer.sbatch", "pyxis.sbatch"]


def test_a_manifest_is_what_its_definition_asks_for(manifest: dict[str, Object]) -> None:
    assert violations(custom(manifest)) == []


@pytest.mark.parametrize(("demo", "original"), DEMOS.items(), ids=lambda path: path.stem)
def test_a_demo_differs_in_image_model_and_sizes_alone(demo: Path, original: Path) -> None:
    made = objects(original)
    for pod in pods(made):
        container, resources = pod.spec["containers"][0], pod.container["resources"]
        container["image"] = container["image"].replace("vllm-cuda", "vllm-cpu")
        resources["requests"] = {"cpu": "2", "memory": "8Gi"}
        resources["limits"] = {"memory": "8Gi"}
        container["volumeMounts"][:] = [mount for mount in container["volumeMounts"] if mount["name"] != "models"]
        pod.spec["volumes"][:] = [volume for volume in pod.spec["volumes"] if volume["name"] != "models"]
        pod.mounts["/dev/shm"]["emptyDir"]["sizeLimit"] = "1Gi"
    if "RayCluster" in made:
        made["RayCluster"]["spec"]["workerGroupSpecs"][0]["groupName"] = "cpu"
    found = objects(demo)
    made["ConfigMap"]["data"] = found["ConfigMap"]["data"]
    assert found == made
    assert [model.source for model in served(found).models] == ["demo"]


@pytest.mark.parametrize("manifest_path", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ("terminationGracePeriodSeconds", "terminationGracePeriod"),
        ("mountPath", "path"),
        ("periodSeconds: 5", "periodSeconds: soon"),
        ("containers:", "container:"),
    ],
)
def test_a_mistake_in_a_manifest_is_seen(manifest_path: Path, found: str, instead: str) -> None:
    text = manifest_path.read_text(encoding="utf-8")
    assert found in text
    made = [one for one in yaml.safe_load_all(text.replace(found, instead)) if one["kind"] in CONTROLLERS]
    assert violations(made[0])


def test_each_pod_learns_its_role(manifest: dict[str, Object], make_plan: Plan) -> None:
    made = pods(manifest)
    assert [pod.role for pod in made] == ["head", "worker"]
    rule = {"LeaderWorkerSet": "LeaderWorkerSet", "RayCluster": "KubeRay"}[custom(manifest)["kind"]]
    for pod in made:
        plan = make_plan(pod.env, gpus=gpus_of(pod))
        assert (plan.role, plan.rule, plan.resources.gpus) == (pod.role, rule, gpus_of(pod))
        assert plan.min_nodes == len(made)


def test_workers_find_the_head(make_plan: Plan) -> None:
    heads = [str(make_plan(pod.env).head) for path in MANIFESTS for pod in pods(objects(path))]
    kuberay, leader = ["10.0.0.5:6379", "llm-head-svc.team.svc.cluster.local:6379"], "llm-0.llm.team:6379"
    assert heads == [*kuberay, *kuberay, *([leader] * 4)]


def test_kuberay_says_what_a_node_offers(make_plan: Plan) -> None:
    for pod in pods(objects(EXAMPLES / "kubernetes/kuberay.yaml")):
        resources = make_plan(pod.env, cpus=64, gpus=0).resources
        assert (resources.cpus, resources.gpus, resources.memory) == (16, 8, 128 << 30)


def test_a_pod_runs_the_image_and_nothing_else(manifest: dict[str, Object]) -> None:
    dockerfile = (ROOT / "images/Dockerfile").read_text(encoding="utf-8")
    words = {name: json.loads(line) for name, line in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", dockerfile, re.MULTILINE)}
    image = {pod.container["image"] for pod in pods(manifest)}
    name, engine, device = re.fullmatch(r"registry\.example\.com/([\w-]+):(\w+)-(\w+)", image.pop()).groups()  # type: ignore[union-attr]
    assert (name, engine in get_registry().list_engines(), image) == ("ray-serve-cai", True, set())
    for pod in pods(manifest):
        assert device == ("cuda" if gpus_of(pod) else "cpu")
        whole = words["ENTRYPOINT"][:2] + words["CMD"] if "RayCluster" in manifest else None
        assert pod.container.get("command") == whole
        assert "args" not in pod.container


def test_kuberay_leaves_the_command_as_it_is_and_knows_the_version_of_ray() -> None:
    made = objects(EXAMPLES / "kubernetes/kuberay.yaml")["RayCluster"]
    versions = json.loads((ROOT / "images/versions.json").read_text(encoding="utf-8"))
    assert made["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    assert {made["spec"]["rayVersion"]} == {image["packages"]["ray"] for image in versions["images"].values()}
    assert "enableInTreeAutoscaling" not in made["spec"]


def test_the_token_comes_from_a_secret(manifest: dict[str, Object]) -> None:
    for pod in pods(manifest):
        given = pod.env["RSCAI_TOKEN_FILE"]
        assert set(pod.env).isdisjoint(secret_files.SECRETS)
        assert pod.mounted(given)["secret"] == {"secretName": "llm-token", "defaultMode": 0o440}
        if "RayCluster" in manifest:  # for wait-gcs-ready
            assert (pod.env["RAY_AUTH_MODE"], pod.env["RAY_AUTH_TOKEN_PATH"]) == ("token", given)


def test_paths_are_mounted_alike_on_every_pod(manifest: dict[str, Object]) -> None:
    head, *workers = pods(manifest)
    assert all(worker.mounts == head.mounts for worker in workers)
    mounted = {volume["name"] for volume in head.mounts.values()}
    assert mounted == {volume["name"] for volume in head.spec["volumes"]}
    for model in (model for model in served(manifest).models if model.source != "demo"):
        volume = head.mounted(model.source)
        assert volume["readOnly"]
        assert volume["persistentVolumeClaim"]["readOnly"]
    assert Path(head.env["RSCAI_CONFIG"]).name in manifest["ConfigMap"]["data"]
    assert head.mounted(head.env["RSCAI_CONFIG"])["configMap"]["name"] == manifest["ConfigMap"]["metadata"]["name"]
    assert head.mounts[supervisor.STATE_DIR]["emptyDir"] == {}
    assert head.mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert "sizeLimit" in head.mounts["/dev/shm"]["emptyDir"]


def test_the_models_take_the_gpus_that_are_there_or_a_cpu_of_each_pod(manifest: dict[str, Object]) -> None:
    wanted = sum(model.tensor_parallel_size * model.pipeline_parallel_size * model.replicas for model in served(manifest).models)
    assert wanted == sum(gpus_of(pod) or 1 for pod in pods(manifest))


def test_probes_ask_the_launcher_and_kill_no_worker_that_was_refused(manifest: dict[str, Object]) -> None:
    for pod in pods(manifest):
        asked = {kind: pod.container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        if pod.role == "head":
            assert {kind: probe["httpGet"]["path"] for kind, probe in asked.items()} == {
                "startup": "/health",
                "liveness": "/health",
                "readiness": "/ready",
            }
            assert {pod.ports[probe["httpGet"]["port"]] for probe in asked.values()} == {Ports.status}
        else:
            alive = ["ray-serve-cai", "health", "--live"]
            assert {kind: probe["exec"]["command"] for kind, probe in asked.items()} == {
                "startup": alive,
                "liveness": alive,
                "readiness": alive[:-1],
            }
        assert all(asked[kind]["periodSeconds"] * asked[kind]["failureThreshold"] >= 60 for kind in ("startup", "liveness"))


def test_ports_are_those_of_the_launcher(manifest: dict[str, Object]) -> None:
    plan = {name.replace("_", "-"): port for name, port in Ports().as_dict().items()}
    plan |= {"gcs-server": Ports.gcs, "metrics": Ports.metrics_export}  # as KubeRay calls them
    assert all(port == plan[name] for pod in pods(manifest) for name, port in pod.ports.items())


def test_a_pod_has_time_to_drain(manifest: dict[str, Object], make_plan: Plan) -> None:
    for pod in pods(manifest):
        before = pod.container.get("lifecycle", {}).get("preStop", {"exec": {"command": ["sleep", "0"]}})["exec"]["command"]
        needed = int(before[1]) + make_plan(pod.env).drain_s + supervisor.STOP_GRACE_S
        assert pod.spec["terminationGracePeriodSeconds"] > needed


def test_a_pod_has_no_rights_and_no_strangers_variables(manifest: dict[str, Object]) -> None:
    for pod in pods(manifest):
        assert pod.spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 0,
            "fsGroup": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod.container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert (pod.spec["enableServiceLinks"], pod.spec["automountServiceAccountToken"]) == (False, False)


def test_the_service_is_the_heads_front_door(manifest: dict[str, Object]) -> None:
    head, *workers = pods(manifest)
    service = manifest["Service"]
    selector, (port,) = service["spec"]["selector"].items(), service["spec"]["ports"]
    assert selector <= head.labels.items()
    assert not any(selector <= worker.labels.items() for worker in workers)
    assert head.ports[port["targetPort"]] == Ports.front_door
    assert service["metadata"]["name"] != custom(manifest)["metadata"]["name"]


def test_only_the_front_door_is_open_to_others(manifest: dict[str, Object]) -> None:
    policy = manifest["NetworkPolicy"]["spec"]
    chosen = policy["podSelector"]
    assert all(chosen["matchLabels"].items() <= pod.labels.items() for pod in pods(manifest))
    assert policy["ingress"] == [{"from": [{"podSelector": chosen}]}, {"ports": [{"port": Ports.front_door, "protocol": "TCP"}]}]


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "gpu[08-09]",
    "SLURM_STEP_NODELIST": "gpu[08-09]",
    "SLURM_NNODES": "2",
    "SLURM_LOCALID": "0",
}
RECORD = r"""
record() {  # NAME ARGUMENTS: a file of arguments and one of variables for each call
  local number; number=$(find "$RECORDS" -name "$1.*.arguments" | wc -l)
  printf '%s\0' "${@:2}" > "$RECORDS/$1.$number.arguments"
  env > "$RECORDS/$1.$number.env"
}
"""
STUBS = {
    "scontrol": 'printf "gpu08\\ngpu09\\n"',
    "srun": RECORD
    + r"""
record srun "$@"
cp -r "$SLURM_SUBMIT_DIR/llm-$SLURM_JOB_ID" "$RECORDS/shared" 2>/dev/null
stat -c '%a' "$SLURM_SUBMIT_DIR/llm-$SLURM_JOB_ID/token" >> "$RECORDS/mode" 2>/dev/null
while [[ ${1:-} == --* ]]; do shift; done
for SLURM_NODEID in 0 1; do
  export SLURM_NODEID
  "$@" || exit
done
""",
    "apptainer": RECORD + 'record apptainer "$@"',
    "tini": RECORD + 'record tini "$@"',
}


@dataclass(frozen=True)
class Run:
    """What a script did, with stubs in place of Slurm and the containers."""

    code: int
    said: str
    records: Path
    submitted: Path

    def arguments(self, name: str) -> list[list[str]]:
        return [file.read_text().split("\0")[:-1] for file in sorted(self.records.glob(f"{name}.*.arguments"))]

    def environments(self, name: str) -> list[dict[str, str]]:
        lines = [file.read_text().splitlines() for file in sorted(self.records.glob(f"{name}.*.env"))]
        return [dict(line.split("=", 1) for line in one if "=" in line) for one in lines]


Batch = Callable[..., Run]


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    def run(script: Path, **stubs: str) -> Run:
        here, records, submitted = (tmp_path / name for name in ("bin", "records", "submitted"))
        for directory in (here, records, submitted):
            directory.mkdir()
        for name, text in (STUBS | stubs).items():
            (here / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (here / name).chmod(0o755)
        env = SLURM | {
            "PATH": f"{here}:{os.environ['PATH']}",
            "RECORDS": str(records),
            "SLURM_SUBMIT_DIR": str(submitted),
            "TMPDIR": str(tmp_path / "local"),
            "MODEL": "/shared/my model",
            "IMAGE": "/shared/image",
            "PYTHONPATH": "/host",
        }
        done = subprocess.run(["bash", script], env=env, capture_output=True, text=True, check=False, timeout=60, cwd=submitted)
        return Run(done.returncode, done.stdout + done.stderr, records, submitted)

    return run


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_a_script_starts_one_container_on_each_node(batch: Batch, script: Path, make_plan: Plan) -> None:
    run = batch(script)
    assert run.code == 0, run.said
    started = "apptainer" if script.stem == "apptainer" else "tini"
    places = [make_plan(env, gpus=8) for env in run.environments(started)]
    assert [(place.role, str(place.head), place.rule, place.min_nodes) for place in places] == [
        ("head", "gpu08:6379", "Slurm", 2),
        ("worker", "gpu08:6379", "Slurm", 2),
    ]
    assert all("PYTHONPATH" not in env for env in run.environments(started))
    assert "ssh -J LOGIN_NODE -L 8000:127.0.0.1:8000 gpu08" in run.said
    assert {place.host for place in places} == {"127.0.0.1"}


def test_the_command_line_of_apptainer(batch: Batch, tmp_path: Path) -> None:
    run = batch(EXAMPLES / "slurm/apptainer.sbatch")
    local, shared = tmp_path / "local/llm-7", tmp_path / "submitted/llm-7"
    binds = [f"{local}/tmp:/tmp", f"{local}/state:{supervisor.STATE_DIR}", f"{shared}:/mnt:ro", "/shared/my model:/models/llm:ro"]
    wanted = ["run", "--nv", *(word for bind in binds for word in ("--bind", bind)), "/shared/image"]
    assert run.arguments("apptainer") == [wanted, wanted]
    first, last = run.arguments("srun")
    assert first[:3] == ["--ntasks-per-node=1", "--kill-on-bad-exit=1", "--wait=0"]
    assert "exec apptainer run" in first[5]
    assert last == ["--ntasks-per-node=1", "rm", "-rf", str(local)]
    assert not local.exists()


def test_the_command_line_of_pyxis(batch: Batch, tmp_path: Path) -> None:
    run = batch(EXAMPLES / "slurm/pyxis.sbatch")
    assert run.arguments("srun") == [
        [
            *("--ntasks-per-node=1", "--kill-on-bad-exit=1", "--wait=0"),
            *("--container-image=/shared/image", "--no-container-entrypoint", "--no-container-mount-home", "--container-writable"),
            f"--container-mounts={tmp_path}/submitted/llm-7:/mnt:ro,/shared/my model:/models/llm:ro",
            *("tini", "--", "ray-serve-cai", "node"),
        ]
    ]


def test_the_token_is_in_a_file_of_the_owner_and_nowhere_else(batch: Batch, script: Path) -> None:
    run = batch(script)
    token = (run.records / "shared/token").read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", token)
    assert set((run.records / "mode").read_text().split()) == {"600"}
    assert stat.S_IMODE((run.records / "shared").stat().st_mode) == 0o700
    everything = [run.said, *(file.read_text() for file in run.records.glob("*.*"))]
    assert not any(token in text for text in everything)
    assert list(run.submitted.iterdir()) == []


def test_the_containers_find_token_configuration_and_model(batch: Batch, script: Path) -> None:
    run = batch(script)
    env = run.environments("srun")[0]
    files = {env[name]: run.records / "shared" / Path(env[name]).name for name in ("RSCAI_TOKEN_FILE", "RSCAI_CONFIG")}
    assert all(Path(inside).parent == Path("/mnt") and file.is_file() for inside, file in files.items())
    (model,) = config.load(str(files[env["RSCAI_CONFIG"]])).models
    assert model.source == "/models/llm"
    assert model.tensor_parallel_size * model.pipeline_parallel_size * model.replicas == 16


def test_two_jobs_have_two_tokens(batch: Batch, script: Path, tmp_path: Path) -> None:
    first = (batch(script).records / "shared/token").read_text()
    for name in ("bin", "records", "submitted"):
        shutil.rmtree(tmp_path / name)
    assert (batch(script).records / "shared/token").read_text() != first


def test_a_cancelled_job_waits_for_its_launchers_and_keeps_their_exit_code(batch: Batch, script: Path) -> None:
    run = batch(script, srun='[[ " $* " == *" rm "* ]] && exit 1; kill -TERM "$PPID"; echo drained; exit 75')
    assert (run.code, "drained" in run.said) == (75, True), run.said
    assert list(run.submitted.iterdir()) == []


def test_slurm_leaves_time_to_drain(script: Path, make_plan: Plan) -> None:
    text = script.read_text(encoding="utf-8")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    name, _, seconds = asked["signal"].partition("@")
    drain = dict(re.findall(r"\b(RSCAI_DRAIN_S)=(\d+)", text))
    assert (name, asked["ntasks-per-node"], asked["nodes"]) == ("TERM", "1", "2")
    assert int(seconds) > make_plan(drain).drain_s + supervisor.STOP_GRACE_S


def test_a_model_must_be_named(script: Path) -> None:
    done = subprocess.run(["bash", script], env=SLURM | {"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "MODEL: a directory on the shared file system" in done.stderr


def test_recorded_environments_name_what_the_controllers_are_written_after() -> None:
    """The fixtures of the contracts and the controllers above have the same variables."""
    recorded = Path(__file__).parent / "node/environments"
    for path in MANIFESTS:
        for pod in pods(objects(path)):
            kind = path.stem.removesuffix("-demo").replace("leaderworkerset", "lws")
            name = f"{kind}-{'leader' if kind == 'lws' and pod.role == 'head' else pod.role}.env"
            own = own_environment(pod.spec)
            assert {variable for variable in pod.env if variable not in own} <= set(env_file.read(recorded / name, {}))
