import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from google.protobuf.json_format import ParseDict
from kfp.components import load_component_from_file
from kfp.pipeline_spec import pipeline_spec_pb2

from components.launcher.profile import Profile
from edm2core.config.experiment import Experiment, load_experiment
from edm2core.errors import InputError
from edm2core.manifest import Ref
from edm2core.plan import Task, plan
from edm2core.store.runs import run_id
from pipelines.kfp import MOST_TASKS, compile
from pipelines.sources import resolve

DIGEST = "sha256:" + "0123456789abcdef" * 4
PROFILE = {
    "name": "far",
    "context": "my-laptops-name-for-it",
    "namespace": "team",
    "store": {
        "uri": "s3://bucket/edm2",
        "env": {"EDM2_S3_ENDPOINT": "http://seaweedfs.kubeflow:9000"},
        "secret": "mlpipeline-minio-artifact",
        "secret_env": {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"},
    },
    "images": {"compute": f"registry/edm2-compute@{DIGEST}", "control": f"registry/edm2-control@{DIGEST}"},
    "resources": {"snapshot": {"nodes": 2, "gpus": 8}, "probe": {"gpus": 1, "cpu": "4", "memory": "16Gi", "shm": "2Gi"}},
    "run_in_task_pod": ["probe", "snapshot"],
    "node_selector": {"pool": "a100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}


def profile(**changes: Any) -> Profile:
    return Profile.model_validate({**PROFILE, **changes})


def experiment(folder: Path, **settings: Any) -> tuple[Experiment, list[Task]]:
    values = {"name": "C-and-E", "recipes": ["digits/C", "digits/E"], "seeds": [0, 1], "epochs": [1, 2], "metrics": ["fd"], **settings}
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    read = load_experiment(file)
    return read, plan(read, resolve(read))


class Package:
    """A compiled package, with what a test asks of it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.text = file.read_text()
        self.spec, *others = yaml.safe_load_all(self.text)
        self.platform = others[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if others else {}

    def tasks(self, dag: str = "") -> dict[str, Any]:
        component = self.spec["components"][dag] if dag else self.spec["root"]
        tasks: dict[str, Any] = component.get("dag", {}).get("tasks", {})
        return tasks

    def all_tasks(self, dag: str = "") -> list[dict[str, Any]]:
        return [t for task in self.tasks(dag).values() for t in (task, *self.all_tasks(task["componentRef"]["name"]))]

    @property
    def experiment(self) -> str:
        return str(self.tasks()["exit-handler-1"]["componentRef"]["name"])

    def executor(self, task: dict[str, Any]) -> str:
        return str(self.spec["components"][task["componentRef"]["name"]]["executorLabel"])

    def container(self, task: dict[str, Any]) -> dict[str, Any]:
        container: dict[str, Any] = self.spec["deploymentSpec"]["executors"][self.executor(task)]["container"]
        return container

    def edges(self) -> set[tuple[Ref, Ref]]:
        """Which of the plan's tasks waits for which, by what the package says."""
        found: set[tuple[Ref, Ref]] = set()

        def walk(dag: str, inputs: dict[str, Ref]) -> None:
            tasks = self.tasks(dag)
            refs = {name: ref_of(task) for name, task in tasks.items()}
            for name, task in tasks.items():
                artifacts = {
                    key: inputs[source["componentInputArtifact"]]
                    if "componentInputArtifact" in source
                    else refs[source["taskOutputArtifact"]["producerTask"]]
                    for key, source in task.get("inputs", {}).get("artifacts", {}).items()
                }
                own = refs[name]
                if own is None:
                    walk(task["componentRef"]["name"], {key: ref for key, ref in artifacts.items() if ref})
                    continue
                waits = [refs[other] for other in task.get("dependentTasks", ())]
                found.update((own, ref) for ref in (*artifacts.values(), *waits) if ref)

        walk("", {})
        return found


def ref_of(task: dict[str, Any]) -> Ref | None:
    text = task.get("inputs", {}).get("parameters", {}).get("task", {}).get("runtimeValue", {}).get("constant")
    return Task.from_json(json.loads(text)).ref if text else None


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, list[Task]]:
    return experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def package(asked: tuple[Experiment, list[Task]], tmp_path_factory: pytest.TempPathFactory) -> Package:
    file = tmp_path_factory.mktemp("package") / "package.yaml"
    read, tasks = asked
    compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2", file)
    return Package(file)


def test_a_package_is_one_that_kfp_reads(package: Package) -> None:
    read = load_component_from_file(str(package.file))
    assert read.name == "c-and-e"
    spec = ParseDict(package.spec, pipeline_spec_pb2.PipelineSpec())
    assert spec.sdk_version == "kfp-2.17.0"
    assert set(spec.root.input_definitions.parameters) == {"run", "store", "profile"}
    ParseDict(package.spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())


def test_every_task_of_the_plan_is_in_the_package_once_under_its_title(package: Package, asked: tuple[Experiment, list[Task]]) -> None:
    titles = {ref: task["taskInfo"]["name"] for task in package.all_tasks() if (ref := ref_of(task))}
    assert titles == {task.ref: task.title for task in asked[1]}
    assert sum(ref_of(task) is not None for task in package.all_tasks()) == len(asked[1])


def test_a_task_reaches_its_component_unchanged(package: Package, asked: tuple[Experiment, list[Task]]) -> None:
    constants = [task["inputs"]["parameters"]["task"]["runtimeValue"]["constant"] for task in package.all_tasks() if ref_of(task)]
    assert {task.ref: task for text in constants for task in [Task.from_json(json.loads(text))]} == {t.ref: t for t in asked[1]}
    assert not any("{{" in text for text in constants)  # Argo would take it for a parameter of its own


def test_the_edges_are_the_plans(package: Package, asked: tuple[Experiment, list[Task]]) -> None:
    assert package.edges() == {(task.ref, need) for task in asked[1] for need in task.needs}


def test_tasks_are_nested_by_trajectory(package: Package) -> None:
    inside = package.tasks(package.experiment)
    nested = {t["taskInfo"]["name"]: package.tasks(t["componentRef"]["name"]) for t in inside.values() if not ref_of(t)}
    assert nested.pop("record the run") == {}
    assert set(nested) == {"C · seed 0", "C · seed 1", "E · seed 0", "E · seed 1"}
    for who, tasks in nested.items():
        assert len(tasks) == 8  # at each of two epochs: snapshot, samples, metrics, probe
        assert all(task["taskInfo"]["name"].startswith(who) for task in tasks.values())
    shared = [task["taskInfo"]["name"] for task in inside.values() if ref_of(task)]
    assert len(shared) == 4
    assert not any("seed" in title for title in shared)


def test_the_run_is_recorded_before_anything_is_done(package: Package) -> None:
    inside = package.tasks(package.experiment)
    assert "dependentTasks" not in inside["record"]
    begin = [task for name, task in inside.items() if ref_of(task) and not task["inputs"].get("artifacts")]
    assert begin
    assert all(task["dependentTasks"] == ["record"] for task in begin)


def test_the_report_is_the_exit_task_and_reads_no_artifact(package: Package) -> None:
    root = package.tasks()
    assert set(root) == {"exit-handler-1", "report"}
    assert root["report"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["report"]["dependentTasks"] == ["exit-handler-1"]
    assert set(root["report"]["inputs"]) == {"parameters"}
    assert {tuple(value) for value in root["report"]["inputs"]["parameters"].values()} == {("componentInputParameter",)}


def test_nothing_is_cached(package: Package) -> None:
    tasks = [task for task in package.all_tasks() if task["componentRef"]["name"] != package.experiment]
    assert {json.dumps(task["cachingOptions"]) for task in tasks} == {"{}"}


def test_images_are_named_by_digest_and_nothing_is_installed(package: Package) -> None:
    containers = [executor["container"] for executor in package.spec["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {f"registry/edm2-compute@{DIGEST}", f"registry/edm2-control@{DIGEST}"}
    assert "pip" not in json.dumps(containers)


def test_credentials_are_named_and_never_held(package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in package.platform.values():
        [secret] = kind["secretAsEnv"]
        assert secret["secretName"] == "mlpipeline-minio-artifact"
        assert {pair["envVar"]: pair["secretKey"] for pair in secret["keyToEnv"]} == PROFILE["store"]["secret_env"]  # type: ignore[index]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who-am-i")
    read, tasks = experiment(tmp_path)
    compile(tasks, read, "run", profile(), "s3://bucket/edm2", tmp_path / "package.yaml")
    assert "hush-hush" not in (tmp_path / "package.yaml").read_text()
    assert "who-am-i" not in (tmp_path / "package.yaml").read_text()


def test_a_pods_profile_names_no_context_of_this_machines_kubeconfig(package: Package) -> None:
    text = package.spec["root"]["inputDefinitions"]["parameters"]["profile"]["defaultValue"]
    assert Profile.loads(text) == profile(context=None)
    assert "my-laptops-name-for-it" not in package.text


def test_every_pod_is_admitted_where_restricted_podsecurity_is_enforced(package: Package) -> None:
    user = str(profile().run_as_user)
    assert set(package.platform) == set(package.spec["deploymentSpec"]["executors"])
    for kind in package.platform.values():
        assert kind["securityContext"] == {"runAsUser": user, "runAsGroup": user, "runAsNonRoot": True}


def test_every_container_says_what_it_needs_and_where_its_store_is(package: Package) -> None:
    for executor in package.spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert {"resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(container["resources"])
        assert {"name": "EDM2_S3_ENDPOINT", "value": "http://seaweedfs.kubeflow:9000"} in container["env"]


def test_only_a_stage_of_one_node_that_the_profile_names_works_in_kfps_own_pod(package: Package) -> None:
    by_stage = {ref.stage: task for task in package.all_tasks() if (ref := ref_of(task))}
    compute = {stage for stage, task in by_stage.items() if "compute" in package.container(task)["image"]}
    assert compute == {"probe"}  # the trainings are of two nodes
    container = package.container(by_stage["probe"])
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert container["resources"]["resourceMemoryLimit"] == "16Gi"
    assert {"name": "OMP_NUM_THREADS", "value": "4"} in container["env"]  # a pod sees all of its node's cores
    pod = package.platform[package.executor(by_stage["probe"])]
    assert {mount["mountPath"]: mount.get("medium") for mount in pod["emptyDirMounts"]}["/dev/shm"] == "Memory"
    assert pod["nodeSelector"] == {"labels": {"pool": "a100"}}
    assert "accelerator" not in package.container(by_stage["snapshot"])["resources"]


def test_a_training_that_starts_from_a_checkpoint_waits_for_its_reading(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model_0.pth")
    overrides = {"start.checkpoint": "model_0.pth", "data.standardize": False}
    read, tasks = experiment(tmp_path, recipes=["digits/E"], overrides=overrides)
    compile(tasks, read, "run", profile(), "s3://bucket/edm2", tmp_path / "package.yaml")
    package = Package(tmp_path / "package.yaml")
    assert package.edges() == {(task.ref, need) for task in tasks for need in task.needs}
    inside = {ref.stage for task in package.tasks(package.experiment).values() if (ref := ref_of(task))}
    assert "start" in inside  # both seeds' trainings share it


def test_mixed_averages_belong_to_their_trajectory(tmp_path: Path) -> None:
    emas = {"sample": {"ema": ["fixed", 0.05, 0.075]}, "probe": {"ema": 0.12}, "diagnostics": {"ema": 0.075}}
    read, tasks = experiment(tmp_path, recipes=["digits/E"], epochs=[40], **emas)
    compile(tasks, read, "run", profile(), "s3://bucket/edm2", tmp_path / "package.yaml")
    package = Package(tmp_path / "package.yaml")
    assert package.edges() == {(task.ref, need) for task in tasks for need in task.needs}
    shared = {ref.stage for task in package.tasks(package.experiment).values() if (ref := ref_of(task))}
    assert not shared & {"ema", "diagnostics"}


def test_equal_components_are_written_once(package: Package) -> None:
    assert len(package.spec["deploymentSpec"]["executors"]) == 10  # the seven stages, of which the probe twice, the record and the report


def test_max_parallel_lets_only_so_many_trajectories_begin(asked: tuple[Experiment, list[Task]], tmp_path: Path) -> None:
    read, tasks = asked
    compile(tasks, read, "run", profile(kfp={"max_parallel": 3}), "s3://bucket/edm2", tmp_path / "package.yaml")
    package = Package(tmp_path / "package.yaml")
    inside = package.tasks(package.experiment)
    nested = [name for name, task in inside.items() if package.tasks(task["componentRef"]["name"])]
    waits = {name: set(inside[name]["dependentTasks"]) & set(nested) for name in nested}
    assert sorted(map(len, waits.values())) == [0, 0, 0, 1]


def test_without_a_profile_everything_is_done_in_the_tasks_own_pods(asked: tuple[Experiment, list[Task]], tmp_path: Path) -> None:
    read, tasks = asked
    compile(tasks, read, "run", None, "/some/where", tmp_path / "package.yaml")
    package = Package(tmp_path / "package.yaml")
    assert package.platform == {}
    parameters = package.spec["root"]["inputDefinitions"]["parameters"]
    assert {name: value["defaultValue"] for name, value in parameters.items()} == {"run": "run", "store": "/some/where", "profile": ""}


def test_a_package_is_the_same_each_time(asked: tuple[Experiment, list[Task]], package: Package, tmp_path: Path) -> None:
    read, tasks = asked
    compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2", tmp_path / "package.yaml")
    assert (tmp_path / "package.yaml").read_text() == package.text


def test_the_largest_plan_fits_into_etcd_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    settings = {"recipes": ["cifar10/C", "cifar10/E"], "seeds": [0, 1], "metrics": [], "epochs": list(range(10, 300, 10))}
    read, tasks = experiment(tmp_path, **settings)
    assert MOST_TASKS * 0.9 < len(tasks) <= MOST_TASKS
    compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2", tmp_path / "package.yaml")
    package = Package(tmp_path / "package.yaml")
    assert len(json.dumps(package.spec)) < 2**19
    arguments = [constant for task in package.all_tasks() if (constant := task["inputs"]["parameters"].get("plan"))]
    assert [len(json.dumps(argument)) < 2**16 for argument in arguments] == [True]
    read, tasks = experiment(tmp_path, **{**settings, "seeds": [0, 1, 2]})
    with pytest.raises(InputError, match="never tested") as refused:
        compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2", tmp_path / "large.yaml")
    assert "edm2 run --cluster" in refused.value.do_next
    assert not (tmp_path / "large.yaml").exists()


def test_a_training_with_more_tasks_than_one_argument_holds_is_refused(tmp_path: Path) -> None:
    """Kubeflow's driver gets a DAG as one argument of a program, for which Linux has a limit."""
    read, tasks = experiment(tmp_path, recipes=["cifar10/C"], seeds=[0], metrics=[], epochs=list(range(10, 600, 10)))
    assert len(tasks) <= MOST_TASKS
    with pytest.raises(InputError, match=r"of one training \(c-seed-0\) take \d+ KiB") as refused:
        compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2", tmp_path / "large.yaml")
    assert "edm2 run --cluster" in refused.value.do_next
    assert not (tmp_path / "large.yaml").exists()


def test_the_report_alone_knows_the_profiles_mlflow_server_and_its_secret(asked: tuple[Experiment, list[Task]], tmp_path: Path) -> None:
    read, tasks = asked
    server = {"uri": "http://mlflow.tracking:5000", "secret": "mlflow", "secret_env": {"MLFLOW_TRACKING_TOKEN": "token"}}
    compile(tasks, read, run_id(read, tasks), profile(mlflow=server), "s3://bucket/edm2", tmp_path / "package.yaml")
    package = Package(tmp_path / "package.yaml")
    report = package.tasks()["report"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": server["uri"]} in package.container(report)["env"]
    secrets = package.platform[package.executor(report)]["secretAsEnv"]
    assert {"mlflow", "mlpipeline-minio-artifact"} == {secret["secretName"] for secret in secrets}
    assert package.text.count("MLFLOW_TRACKING_URI") == 1
    assert package.text.count("envVar: MLFLOW_TRACKING_TOKEN") == 1
