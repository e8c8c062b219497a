"""Ready jobs: kept in step with recipes, and such that one kubectl apply trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.launcher.job_kinds import KINDS, JobKind
from components.launcher.profile import Profile, load_profile
from components.launcher.spec import job_name
from edm2core.config import load_recipe
from edm2core.errors import InputError
from edm2core.plan.tasks import Task
from pipelines.cli.render import command, kept_recipes, plain_profile, ready_jobs, render, runtimes, text, usual_profile

K8S = Path(__file__).parents[2] / "k8s"


@pytest.fixture(scope="module")
def unrecorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profiles without the digests of images that were built here: the repository's files name images by tag."""
    folder = tmp_path_factory.mktemp("k8s")
    (folder / "profiles").symlink_to(K8S / "profiles")
    return folder


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
@pytest.mark.parametrize("name", kept_recipes())
def test_the_file_in_the_repository_is_what_render_writes(name: str, kind: JobKind, unrecorded: Path) -> None:
    file = K8S / kind.plural / f"{name.replace('/', '-')}.yaml"
    assert file.exists(), f"run `edm2 render --job {kind.word}`"
    written = text(load_recipe(name), of_kind(load_profile(usual_profile(name), unrecorded), kind.word))
    assert file.read_text() == written, f"run `edm2 render --job {kind.word}`"


@pytest.mark.parametrize(
    ("profile", "file"), [("", "base/trainingruntime"), ("gpu", "overlays/gpu/trainingruntimes"), ("lab", "overlays/lab/trainingruntimes")]
)
def test_the_runtimes_in_the_repository_are_those_that_trainjobs_of_the_profiles_name(profile: str, file: str) -> None:
    read = of_kind(load_profile(profile) if profile else plain_profile(), "trainjob")
    path = f"{K8S / file}.yaml"
    assert Path(path).read_text() == runtimes(read), f"run `edm2 render --runtimes --job trainjob --cluster {profile} > {path}`"


def test_every_trainjob_in_the_repository_names_a_runtime_that_its_profiles_overlay_brings() -> None:
    for file in (K8S / "trainjobs").glob("*.yaml"):
        overlay = K8S / "overlays" / usual_profile(file.stem.replace("-", "/")) / "trainingruntimes.yaml"
        brought = {runtime["metadata"]["name"] for runtime in yaml.safe_load_all(overlay.read_text())}
        assert {job["spec"]["runtimeRef"]["name"] for job in yaml.safe_load_all(file.read_text())} <= brought


def test_runtimes_of_pytorchjobs_are_refused_in_words() -> None:
    with pytest.raises(InputError, match="PyTorchJobs need no TrainingRuntime"):
        runtimes(plain_profile())


def of_kind(profile: Profile, word: str) -> Profile:
    return profile.model_copy(update={"job": word})


def test_the_command_writes_either_kind_into_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        done = CliRunner().invoke(command, ["digits/C", "--job", kind.word])
        assert done.output == f"k8s/{kind.plural}/digits-C.yaml\n"
        jobs = yaml.safe_load_all((tmp_path / "k8s" / kind.plural / "digits-C.yaml").read_text())
        assert {job["kind"] for job in jobs} == {kind.name}
    done = CliRunner().invoke(command, ["--runtimes", "--job", "trainjob", "--cluster", "gpu"])
    assert [runtime["kind"] for runtime in yaml.safe_load_all(done.output)] == ["TrainingRuntime"] * 2


def test_the_repository_has_the_jobs_of_c_e_and_g_of_each_data_set_and_no_others() -> None:
    datasets = ("cifar10", "cifar100", "digits", "tinyimagenet")
    for kind in KINDS:
        assert {file.stem for file in (K8S / kind.plural).glob("*")} == {f"{dataset}-{config}" for dataset in datasets for config in "CEG"}


def test_any_other_recipes_jobs_are_written_on_demand(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["paper/digits/B", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.iterdir()
    recipe = load_recipe("paper/digits/B")
    assert file.name == "paper-digits-B.yaml"
    _, training = map(task_of, yaml.safe_load_all(file.read_text()))
    assert training.settings["epoch"] == recipe.training.epochs


def task_of(job: Any) -> Task:
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    return Task.from_json(json.loads(container["args"][2]))


def test_one_job_prepares_the_data_that_the_other_trains_on_to_the_recipes_end() -> None:
    recipe, profile = load_recipe("cifar10/E"), load_profile("gpu")
    jobs = ready_jobs(recipe, profile)
    data, training = map(task_of, jobs)
    assert training.inputs["data"] == data.ref
    assert training.wanted[-1] == training.settings["epoch"] == recipe.training.epochs
    assert [job["metadata"]["name"] for job in jobs] == [job_name(task, profile.store.uri) for task in (data, training)]


def test_only_the_job_that_prepares_may_download() -> None:
    """By the labels of its pods, which the policies of k8s/components/downloads select."""
    policies = list(yaml.safe_load_all((K8S / "components" / "downloads" / "networkpolicy.yaml").read_text()))
    (stages,) = [expression["values"] for policy in policies for expression in policy["spec"]["podSelector"]["matchExpressions"]]
    prepares, trains = [
        job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["metadata"]["labels"]["edm2/stage"]
        for job in ready_jobs(load_recipe("cifar10/E"), load_profile("gpu"))
    ]
    assert prepares in stages
    assert trains not in stages


def test_the_top_of_a_file_names_the_job_and_where_it_is() -> None:
    written = text(load_recipe("digits/G"), load_profile("lab"))
    _, job = yaml.safe_load_all(written)
    head = [line for line in written.splitlines() if line.startswith("#")]
    assert all(job["metadata"]["name"] in line and job["metadata"]["namespace"] in line for line in head[2:])


def test_a_profile_decides_where_and_with_what(tmp_path: Path) -> None:
    file = render("digits/C", load_profile("gpu"), tmp_path)
    prepare, training = [job["spec"] for job in yaml.safe_load_all(file.read_text())]
    assert training["nprocPerNode"] == "4"
    assert training["pytorchReplicaSpecs"]["Worker"]["replicas"] == 1
    (container,) = prepare["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
