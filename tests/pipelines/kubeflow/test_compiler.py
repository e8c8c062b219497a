import gzip
import json
import re
from pathlib import Path
from typing import Any

import kfp
import pytest
import torch
import yaml
from google.protobuf.json_format import ParseDict
from kfp.components import load_component_from_file
from kfp.pipeline_spec import pipeline_spec_pb2

from components.launcher.profile import Profile
from components.record.plan_parameter import Packed, grouped, named
from edm2core.errors import InputError
from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan, plan
from edm2core.plan.tasks import Task
from edm2core.store.runs import run_id
from pipelines.inputs.user_files import resolve
from pipelines.kubeflow.compiler import Package as Made
from pipelines.kubeflow.compiler import compile, halves

DATA = Path(__file__).parents[2] / "data"
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
    """A package, with what a test asks of it."""

    def __init__(self, made: Made, folder: Path) -> None:
        self.made, self.file = made, folder / "package.yaml"
        made.write(self.file)
        self.text = self.file.read_text()
        self.spec, *others = yaml.safe_load_all(self.text)
        self.platform = others[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if others else {}
        self.refs = {(of, name): ref for of, group in grouped(made.tasks).items() for ref, name in named(made.tasks, group).items()}

    def tasks(self, dag: str = "") -> dict[str, Any]:
        component = self.spec["components"][dag] if dag else self.spec["root"]
        tasks: dict[str, Any] = component.get("dag", {}).get("tasks", {})
        return tasks

    def all_tasks(self, dag: str = "", of: str = "") -> list[tuple[dict[str, Any], str]]:
        """Every task of Kubeflow's that will be, and of which trajectory it is."""
        found = []
        for task in self.tasks(dag).values():
            within = self.constant(task, "of", of)
            found += [(task, within), *self.all_tasks(task["componentRef"]["name"], within)]
        return found

    @staticmethod
    def constant(task: dict[str, Any], name: str, default: str) -> str:
        source = task.get("inputs", {}).get("parameters", {}).get(name, {})
        return str(source.get("runtimeValue", {}).get("constant", default))

    def ref(self, task: dict[str, Any], of: str) -> Ref | None:
        """Which of the plan's tasks it is."""
        name = self.constant(task, "task", "")
        return self.refs[of, name] if name else None

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

        def walk(dag: str, inputs: dict[str, Ref], of: str) -> None:
            tasks = self.tasks(dag)
            refs = {name: self.ref(task, self.constant(task, "of", of)) for name, task in tasks.items()}
            for name, task in tasks.items():
                artifacts = {
                    key: inputs[source["componentInputArtifact"]]
                    if "componentInputArtifact" in source
                    else refs[source["taskOutputArtifact"]["producerTask"]]
                    for key, source in task.get("inputs", {}).get("artifacts", {}).items()
                }
                own = refs[name]
                if own is None:
                    walk(task["componentRef"]["name"], {key: ref for key, ref in artifacts.items() if ref}, self.constant(task, "of", of))
                    continue
                waits = [refs[other] for other in task.get("dependentTasks", ())]
                found.update((own, ref) for ref in (*artifacts.values(), *waits) if ref)

        walk("", {}, "")
        return found


def made(
    folder: Path, prof: Profile | None = None, store: str = "s3://bucket/edm2", run: str = "", **settings: Any
) -> tuple[Package, list[Task]]:
    read, tasks = experiment(folder, **settings)
    (package,) = compile(tasks, read, run or run_id(read, tasks), prof or profile(), store)
    return Package(package, folder), tasks


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, list[Task]]:
    return experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def package(asked: tuple[Experiment, list[Task]], tmp_path_factory: pytest.TempPathFactory) -> Package:
    read, tasks = asked
    (package,) = compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2")
    return Package(package, tmp_path_factory.mktemp("package"))


def test_a_package_is_one_that_kfp_reads(package: Package) -> None:
    read = load_component_from_file(str(package.file))
    assert read.name == "c-and-e"
    spec = ParseDict(package.spec, pipeline_spec_pb2.PipelineSpec())
    assert spec.sdk_version == f"kfp-{kfp.__version__}"
    assert set(spec.root.input_definitions.parameters) == {"run", "store", "profile"}
    ParseDict(package.spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())


def test_every_task_of_the_plan_is_in_the_package_once(package: Package, asked: tuple[Experiment, list[Task]]) -> None:
    refs = [ref for task, of in package.all_tasks() if (ref := package.ref(task, of))]
    assert sorted(refs) == sorted(task.ref for task in asked[1])


def test_a_task_is_given_its_name_and_where_the_plan_is_and_nothing_else(package: Package, asked: tuple[Experiment, list[Task]]) -> None:
    tasks = [task for task, of in package.all_tasks() if package.ref(task, of)]
    assert {tuple(sorted(task["inputs"]["parameters"])) for task in tasks} == {("of", "plan", "task")}
    assert max(len(package.constant(task, "task", "")) for task in tasks) <= 40
    assert not any("{{" in package.constant(task, "task", "") for task in tasks)  # Argo would take it for a parameter of its own
    assert set(package.tasks()["record"]["inputs"]["parameters"]) == {"run", "store", "profile"}
    plan = next(a for a in package.container(package.tasks()["record"])["args"] if a.startswith("packed="))
    assert [Task.from_json(task) for task in Packed.loads(plan.removeprefix("packed=")).tasks] == list(asked[1])


def test_a_nodes_name_has_the_epoch_within_the_two_dozen_characters_that_are_shown(package: Package) -> None:
    names = {task["taskInfo"]["name"] for task, of in package.all_tasks() if of and package.ref(task, of)}
    assert names >= {"ep 1 · train", "ep 2 · train", "ep 2 · probe", "ep 2 · FD (digits features)"}
    assert all(re.match(r"ep [12] · \w", name) for name in names)


def test_artifacts_say_what_they_are(package: Package) -> None:
    outputs = {
        name: set(component.get("outputDefinitions", {}).get("artifacts", {}))
        for name, component in package.spec["components"].items()
        if "executorLabel" in component
    }
    assert outputs["comp-metrics"] == {"FD"}
    assert outputs["comp-sample"] == {"samples", "pictures"}
    assert outputs["comp-probe"] == {"accuracy", "confusion"}


def test_components_of_equal_containers_are_equal(tmp_path: Path) -> None:
    """Kubeflow's compiler tells components by their containers alone: of two that differ in what they read it would take one for both."""
    package, _ = made(tmp_path, recipes=["digits/E"], sample={"ema": ["fixed", 0.05, 0.075]}, epochs=[20, 40])
    known: dict[str, Any] = {}
    for component in package.spec["components"].values():
        if label := component.get("executorLabel"):
            container = json.dumps(package.spec["deploymentSpec"]["executors"][label], sort_keys=True)
            interface = {key: value for key, value in component.items() if key != "executorLabel"}
            assert known.setdefault(container, interface) == interface
    assert known


def test_the_edges_are_the_plans(package: Package, asked: tuple[Experiment, list[Task]]) -> None:
    assert package.edges() == {(task.ref, need) for task in asked[1] for need in task.needs}


def test_tasks_are_nested_by_trajectory_and_epoch(package: Package) -> None:
    inside = package.tasks(package.experiment)
    nested = {t["taskInfo"]["name"]: package.tasks(t["componentRef"]["name"]) for t in inside.values() if not package.ref(t, "")}
    assert set(nested) == {"C · seed 0", "C · seed 1", "E · seed 0", "E · seed 1"}
    for tasks in nested.values():
        assert sorted(task["taskInfo"]["name"] for task in tasks.values()) == ["ep 1", "ep 1 · train", "ep 2", "ep 2 · train"]
        look = package.tasks(next(task for task in tasks.values() if task["taskInfo"]["name"] == "ep 2")["componentRef"]["name"])
        assert len(look) == 3  # samples, metrics, probe
    assert sum(bool(package.ref(task, "")) for task in inside.values()) == 4


def test_equal_trajectories_are_one_component(package: Package) -> None:
    inside = package.tasks(package.experiment).values()
    assert len({task["componentRef"]["name"] for task in inside if not package.ref(task, "")}) == 1
    assert len({Package.constant(task, "of", "") for task in inside if not package.ref(task, "")}) == 4


def test_the_run_is_recorded_before_anything_is_done(package: Package) -> None:
    assert "dependentTasks" not in package.tasks()["record"]
    handler = package.tasks()["exit-handler-1"]
    sources = [source for source in handler["inputs"]["parameters"].values() if "taskOutputParameter" in source]
    assert {source["taskOutputParameter"]["producerTask"] for source in sources} == {"record"}


def test_what_is_finished_is_skipped_by_what_the_first_task_says(package: Package) -> None:
    root = package.tasks()
    name = "pipelinechannel--record-Output"
    assert root["exit-handler-1"]["triggerPolicy"] == {"condition": f"inputs.parameter_values['{name}'] == 'missing'"}
    assert name in package.spec["components"][package.experiment]["inputDefinitions"]["parameters"]
    assert "Output" in package.spec["components"]["comp-record"]["outputDefinitions"]["parameters"]
    nested = [task for task in package.tasks(package.experiment).values() if not package.ref(task, "")]
    conditions = [task["triggerPolicy"]["condition"] for task in nested]
    names = [f"pipelinechannel--record-t{number}" for number in range(4)]
    assert conditions == [f"inputs.parameter_values['{name}'] == 'missing'" for name in names]
    for task, name in zip(nested, names, strict=True):
        assert task["inputs"]["parameters"][name] == {"componentInputParameter": name}  # kfp.local looks it up by that name around the task
        assert package.spec["components"][task["componentRef"]["name"]]["inputDefinitions"]["parameters"][name]["isOptional"] is True


def pods(spec: dict[str, Any], done: set[str]) -> int:
    """How many pods Argo starts for a package whose first task gives these of its parameters as done.

    A pod for what prepares the run, each DAG and each task, and one for each task; nothing for what is in a DAG that is skipped, and the
    exit task of a skipped one is skipped too: Argo runs hooks of what has completed alone.
    """

    def count(tasks: dict[str, Any]) -> int:
        skipped = {
            name
            for name, task in tasks.items()
            if any(f"record-{flag}'" in task.get("triggerPolicy", {}).get("condition", "") for flag in done)
        }
        total = 0
        for name, task in tasks.items():
            component = spec["components"][task["componentRef"]["name"]]
            if "strategy" in task.get("triggerPolicy", {}) and set(task["dependentTasks"]) <= skipped:
                continue
            assert not set(task.get("dependentTasks", ())) & skipped, f"{name} would never run, as it waits for what is skipped"
            inner = count(component["dag"]["tasks"]) if "dag" in component else 1
            total += 1 + (0 if name in skipped else inner)
        return total

    return 1 + count(spec["root"]["dag"]["tasks"])


def test_the_count_of_pods_is_that_of_the_run_that_was_measured() -> None:
    spec, _ = json.loads(gzip.decompress((DATA / "kubeflow/package-34.json.gz").read_bytes()))
    assert pods(spec, set()) == 77


def test_a_finished_experiment_takes_at_most_five_pods_and_one_a_trajectory(package: Package, tmp_path: Path) -> None:
    flags = {f"t{number}" for number in range(4)}
    assert pods(package.spec, {"Output", *flags}) == 4  # those that prepare the run, the first task and the handler, and the first task
    assert pods(package.spec, {"t0", "t1", "t2"}) == pods(package.spec, flags) + 2 * 2 + 2 * (1 + 3 * 2)
    one, _ = made(tmp_path, seeds=[0], recipes=["digits/E"], prof=profile(kfp={"max_parallel": 1}))
    assert pods(one.spec, {"Output", "t0"}) <= 5 + 1


def test_the_report_is_the_exit_task_and_reads_no_artifact(package: Package) -> None:
    root = package.tasks()
    assert set(root) == {"record", "exit-handler-1", "report"}
    assert root["report"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["report"]["dependentTasks"] == ["exit-handler-1"]
    assert set(root["report"]["inputs"]) == {"parameters"}
    assert {tuple(value) for value in root["report"]["inputs"]["parameters"].values()} == {("componentInputParameter",)}


def test_nothing_is_cached(package: Package) -> None:
    tasks = [task for task, _ in package.all_tasks() if task["componentRef"]["name"] != package.experiment]
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
    package, _ = made(tmp_path)
    assert "hush-hush" not in package.text
    assert "who-am-i" not in package.text


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
    executors = package.spec["deploymentSpec"]["executors"].values()
    assert executors
    for executor in executors:
        container = executor["container"]
        assert {"resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(container["resources"])
        assert {"name": "EDM2_S3_ENDPOINT", "value": "http://seaweedfs.kubeflow:9000"} in container["env"]


def test_only_a_stage_of_one_node_that_the_profile_names_works_in_kfps_own_pod(package: Package) -> None:
    by_stage = {ref.stage: task for task, of in package.all_tasks() if (ref := package.ref(task, of))}
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
    package, tasks = made(tmp_path, recipes=["digits/E"], overrides=overrides)
    assert package.edges() == {(task.ref, need) for task in tasks for need in task.needs}
    inside = {ref.stage for task in package.tasks(package.experiment).values() if (ref := package.ref(task, ""))}
    assert "start" in inside  # both seeds' trainings share it


def test_mixed_averages_belong_to_their_trajectory(tmp_path: Path) -> None:
    emas = {"sample": {"ema": ["fixed", 0.05, 0.075]}, "probe": {"ema": 0.12}, "diagnostics": {"ema": 0.075}}
    package, tasks = made(tmp_path, recipes=["digits/E"], epochs=[40], **emas)
    assert package.edges() == {(task.ref, need) for task in tasks for need in task.needs}
    shared = {ref.stage for task in package.tasks(package.experiment).values() if (ref := package.ref(task, ""))}
    assert not shared & {"ema", "diagnostics"}


def test_equal_components_are_written_once(package: Package) -> None:
    assert len(package.spec["deploymentSpec"]["executors"]) == 10  # the seven stages, of which the probe twice, the record and the report


def test_max_parallel_lets_only_so_many_trajectories_begin(asked: tuple[Experiment, list[Task]], tmp_path: Path) -> None:
    read, tasks = asked
    (compiled,) = compile(tasks, read, "run", profile(kfp={"max_parallel": 3}), "s3://bucket/edm2")
    package = Package(compiled, tmp_path)
    inside = package.tasks(package.experiment)
    nested = [name for name, task in inside.items() if package.tasks(task["componentRef"]["name"])]
    waits = {name: set(inside[name]["dependentTasks"]) & set(nested) for name in nested}
    assert sorted(map(len, waits.values())) == [0, 0, 0, 1]
    assert not any("triggerPolicy" in inside[name] for name in nested)  # what waits for a skipped one would never run
    within = [package.tasks(inside[name]["componentRef"]["name"]) for name in nested]
    assert [[task["triggerPolicy"]["condition"] for task in tasks.values()] for tasks in within] == 4 * [
        ["inputs.parameter_values['missing'] == 'missing'"]
    ]


def test_without_a_profile_everything_is_done_in_the_tasks_own_pods(asked: tuple[Experiment, list[Task]], tmp_path: Path) -> None:
    read, tasks = asked
    (compiled,) = compile(tasks, read, "run", None, "/some/where")
    package = Package(compiled, tmp_path)
    assert package.platform == {}
    parameters = package.spec["root"]["inputDefinitions"]["parameters"]
    assert {name: value["defaultValue"] for name, value in parameters.items()} == {"run": "run", "store": "/some/where", "profile": ""}


def test_a_package_is_the_same_each_time(asked: tuple[Experiment, list[Task]], package: Package, tmp_path: Path) -> None:
    read, tasks = asked
    (again,) = compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2")
    assert Package(again, tmp_path).text == package.text


@pytest.mark.slow
def test_the_published_table_of_a_data_set_fits_into_one_run_with_its_epochs_as_dags(tmp_path: Path) -> None:
    weights = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    recipes = [f"cifar10/{name}" for name in "CEG"]
    file = tmp_path / "experiment.yaml"
    values = {"name": "table", "recipes": recipes, "epochs": list(range(50, 1050, 50)), "metrics": ["fid"], "inception_weights": weights}
    file.write_text(yaml.safe_dump(values))
    read = load_experiment(file)
    digests = {f"data:{recipe}": f"sha256:{'ab' * 32}" for recipe in recipes} | {"inception": "cd" * 32}
    tasks = plan(read, digests)
    assert len(tasks) == 244
    stock = profile(run_in_task_pod=[], node_selector={}, tolerations=[])
    (made,) = compile(tasks, read, run_id(read, tasks), stock, "s3://bucket/edm2")
    package = Package(made, tmp_path)
    assert "ep 1000" in {task["taskInfo"]["name"] for task, _ in package.all_tasks()}
    assert made.size.total < 2**20
    assert len({ref for task, of in package.all_tasks() if (ref := package.ref(task, of))}) == 244


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kubernetes that takes little, so that a test need not compile hundreds of tasks."""
    monkeypatch.setattr("pipelines.kubeflow.workflow_size.MOST", 190_000)


def test_a_package_near_the_limit_leaves_out_what_only_shows_where_things_come_from(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[Experiment, list[Task]], package: Package, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipelines.kubeflow.workflow_size.MOST", int(package.made.size.total * 0.96))
    read, tasks = asked
    (made,) = compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2")
    smaller = Package(made, tmp_path)
    reads = {tuple(task["inputs"].get("artifacts", ())) for task, of in smaller.all_tasks() if of}
    assert reads == {(), ("snapshot",), ("samples",)}
    inside = smaller.tasks(smaller.experiment)
    waits = {name: inside[name]["dependentTasks"] for name in inside if not smaller.ref(inside[name], "")}
    assert waits
    assert all(
        {"prepare", "reference", "extractor"} <= set(names) for names in waits.values()
    )  # each trajectory waits for them all the same


@pytest.mark.usefixtures("small")
def test_what_does_not_fit_is_several_packages_split_by_trajectory(tmp_path: Path) -> None:
    read, tasks = experiment(tmp_path, epochs=[1, 2, 3])
    parts = compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2")
    assert [part.part for part in parts] == [f"{number} of {len(parts)}" for number in range(1, len(parts) + 1)]
    assert len(parts) > 1
    assert {task.ref for part in parts for task in part.tasks} == {task.ref for task in tasks}
    own = [[ref for of, group in grouped(part.tasks).items() if of for ref in named(part.tasks, group)] for part in parts]
    assert sum(map(len, own)) == len({ref for refs in own for ref in refs})  # no trajectory is in two
    for number, part in enumerate(parts):
        (tmp_path / str(number)).mkdir()
        package = Package(part, tmp_path / str(number))
        assert {name for name, task in package.spec["root"]["inputDefinitions"]["parameters"].items()} == {"run", "store", "profile"}
        assert package.spec["root"]["inputDefinitions"]["parameters"]["run"]["defaultValue"] == run_id(read, tasks)
        assert f"part={part.part}" in package.container(package.tasks()["report"])["args"]


@pytest.mark.usefixtures("small")
def test_a_trajectory_that_is_too_large_for_one_run_is_split_by_epochs(tmp_path: Path) -> None:
    read, tasks = experiment(
        tmp_path, recipes=["digits/E"], seeds=[0], epochs=list(range(1, 19)), metrics=[], probe=False, diagnostics=True
    )
    parts = compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2")
    epochs = [{task.subject.epoch for task in part.tasks if task.stage == "snapshot"} for part in parts]
    assert len(parts) > 1
    assert sum(map(len, epochs)) == 18
    assert all(task.wanted == tuple(range(1, 19)) for part in parts for task in part.tasks if task.stage == "snapshot")


def test_halves_have_all_that_their_tasks_need(asked: tuple[Experiment, list[Task]]) -> None:
    for half in halves(asked[1]):
        there = {task.ref for task in half}
        assert all(set(task.inputs.values()) <= there for task in half)
    assert sum(task.stage == "probe" and "snapshot" not in task.inputs for half in halves(asked[1]) for task in half) == 1


@pytest.mark.parametrize("guide", ["{epoch: 10}", "{epoch: 10, ema: 0.15}", "{recipe: digits/E, epoch: 10}"])
def test_a_guide_of_another_epoch_is_an_edge_and_one_of_another_training_is_waited_for(tmp_path: Path, guide: str) -> None:
    guided = f"{{guidance: {{weight: 2, guide: {guide}}}}}"
    (tmp_path / "guided.yaml").write_text(f"extends: digits/C\nname: digits/C\ntraining: {{average_every: 1}}\nsample: {guided}\n")
    package, tasks = made(tmp_path, recipes=["guided.yaml", "digits/E"], seeds=[0], epochs=[11, 12])
    needs = {(task.ref, need) for task in tasks for need in task.needs}
    trained = {task.ref for task in tasks if task.whose == "E · seed 0"}
    across = {(reader, ref) for reader, ref in needs if ref in trained and reader not in trained}
    assert bool(across) == ("digits/E" in guide)
    assert package.edges() == needs - across
    dags = {task["taskInfo"]["name"]: (name, task) for name, task in package.tasks(package.experiment).items()}
    waits = dags["E · seed 0"][0] in dags["C · seed 0"][1]["dependentTasks"]
    assert waits == bool(across)
    assert all(
        bool(task.get("triggerPolicy")) != waits for name, (_, task) in dags.items() if "seed" in name
    )  # what is waited for is never skipped
    for half in halves(Plan.of(tasks)):
        there = {task.ref for task in half}
        assert all(set(task.inputs.values()) <= there for task in half)


def test_trainings_that_guide_one_another_are_refused(tmp_path: Path) -> None:
    for name, other in (("C", "E"), ("E", "C")):
        guided = f"{{guidance: {{weight: 2, guide: {{recipe: digits/{other}, epoch: 1}}}}}}"
        (tmp_path / f"{name}.yaml").write_text(f"extends: digits/{name}\nname: digits/{name}\nsample: {guided}\n")
    with pytest.raises(InputError, match="guided by one another: C · seed 0, E · seed 0") as refused:
        made(tmp_path, recipes=["C.yaml", "E.yaml"], seeds=[0])
    assert "edm2 run --cluster" in refused.value.do_next


def test_one_epoch_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.kubeflow.workflow_size.MOST", 30_000)
    read, tasks = experiment(tmp_path, recipes=["digits/E"], seeds=[0], epochs=[1])
    with pytest.raises(InputError, match="The tasks of one epoch are more than one run of Kubeflow Pipelines holds") as refused:
        compile(tasks, read, run_id(read, tasks), profile(), "s3://bucket/edm2")
    assert "edm2 run --cluster" in refused.value.do_next


def test_only_what_writes_the_report_knows_the_profiles_mlflow_server_and_its_secret(
    asked: tuple[Experiment, list[Task]], tmp_path: Path
) -> None:
    read, tasks = asked
    server = {"uri": "http://mlflow.tracking:5000", "secret": "mlflow", "secret_env": {"MLFLOW_TRACKING_TOKEN": "token"}}
    (compiled,) = compile(tasks, read, run_id(read, tasks), profile(mlflow=server), "s3://bucket/edm2")
    package = Package(compiled, tmp_path)
    report = package.tasks()["report"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": server["uri"]} in package.container(report)["env"]
    secrets = package.platform[package.executor(report)]["secretAsEnv"]
    assert {"mlflow", "mlpipeline-minio-artifact"} == {secret["secretName"] for secret in secrets}
    assert package.text.count("MLFLOW_TRACKING_URI") == 2  # the first task writes the report where nothing is missing
    assert package.text.count("envVar: MLFLOW_TRACKING_TOKEN") == 2
