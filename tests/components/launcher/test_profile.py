import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from components.launcher.profile import Profile, load_profile
from edm2core.errors import InputError, StoreError

TEXT = """\
namespace: team
store: {uri: "s3://bucket/prefix", secret: keys}
images: {compute: "registry/compute:1", control: "registry/control:1"}
resources:
  default: {cpu: 2, memory: 8Gi}
  snapshot: {nodes: 2, gpus: 4}
run_in_task_pod: [metrics, snapshot]
priority_classes: {training: high, evaluation: low}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    return file


def test_a_stage_takes_what_it_does_not_set_from_the_default(path: Path) -> None:
    profile = load_profile(str(path))
    training = profile.resources_of("snapshot")
    assert (training.nodes.max, training.gpus, training.processes_per_node, training.cpu, training.memory) == (2, 4, 4, "2", "8Gi")
    assert profile.resources_of("metrics").processes_per_node == 1


def test_only_stages_of_one_node_run_in_the_tasks_own_pod(path: Path) -> None:
    profile = load_profile(str(path))
    assert profile.in_task_pod("metrics")
    assert not profile.in_task_pod("snapshot")
    assert not profile.in_task_pod("sample")


def test_a_profile_survives_being_sent_as_json(path: Path) -> None:
    profile = load_profile(str(path))
    assert Profile.loads(profile.dumps()) == profile
    assert Profile.loads(profile.dumps()).resources_of("snapshot") == profile.resources_of("snapshot")


def test_images_are_named_by_digest_where_one_is_recorded(path: Path) -> None:
    recorded = {"registry/compute:1": "registry/compute@sha256:" + "0" * 64}
    (path.parent / "images.json").write_text(json.dumps(recorded))
    images = load_profile(str(path), path.parent).images
    assert (images.compute, images.control) == (recorded["registry/compute:1"], "registry/control:1")


def test_an_unknown_setting_is_named_with_its_line_and_the_nearest_one(path: Path) -> None:
    path.write_text(TEXT.replace("memory: 8Gi", "memori: 8Gi"))
    with pytest.raises(InputError, match=r"resources\.default\.memori'\. Did you mean 'memory'") as error:
        load_profile(str(path))
    assert error.value.where == f"{path}, line 5"


@pytest.mark.parametrize("wrong", ["8 GiB", "-1", "lots"])
def test_a_quantity_that_kubernetes_would_refuse_is_refused(path: Path, wrong: str) -> None:
    path.write_text(TEXT.replace("8Gi", f'"{wrong}"'))
    with pytest.raises(InputError, match=r"resources\.default\.memory"):
        load_profile(str(path))


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="lab"):
        load_profile("labb")


def test_the_page_about_clusters_shows_every_setting_at_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "cluster.md").read_text()
    shown = yaml.safe_load(page[page.index("name: mine ") :].partition("```")[0])
    written = Profile.model_validate(shown).model_dump()
    least = {name: shown[name] for name in ("name", "namespace", "images")} | {"store": {"uri": shown["store"]["uri"]}}
    default = Profile.model_validate(least).model_dump()
    different = {name for name in default if written[name] != default[name]}
    assert different == {"store", "resources"}  # which have examples
    assert set(Profile.model_fields) - set(shown) == {"mlflow"}  # which has its own section
    assert set(written["resources"]["default"]) == set(shown["resources"]["default"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("store: {uri: 's3://key:hunter2@bucket/x'}", "not the address of a bucket"),
        ("store: {uri: 's3://Bucket/x'}", "not the address of a bucket"),
        ("store: {uri: 's3://bucket/x?y=hunter2'}", "not the address of a bucket"),
        ("store: {uri: 's3://bucket/../x'}", "not the path"),
        ("store: {uri: /mnt/store}", "not the address of a bucket"),
        ("store: {uri: 'file:///mnt/store'}", "not the address of a bucket"),
        ("store: {uri: 'minio://bucket/x'}", "where MinIO is"),
        ("store: {uri: 's3://bucket/x', env: {EDM2_S3_ENDPOINT: 'minio:9000'}}", "not the address of an object store"),
        ("store: {uri: 's3://bucket/x', env: {EDM2_S3_ENDPOINT: 'http://u:hunter2@minio:9000'}}", "holds a secret"),
        ("store: {uri: 's3://bucket/x', env: {HTTPS_PROXY: 'http://u:hunter2@proxy'}}", "holds a secret"),
        ("store: {uri: 's3://bucket/x', env: {AWS_SECRET_ACCESS_KEY: hunter2}}", "AWS_SECRET_ACCESS_KEY holds a secret"),
        ("mlflow: {uri: 'http://u:hunter2@mlflow'}", "without user, password and query"),
        ("mlflow: {uri: 'http://mlflow?token=hunter2'}", "without user, password and query"),
        ("mlflow: {uri: 'sqlite:///mlflow.db'}", "such as http://server:5000"),
        ("kfp: {host: 'https://u:hunter2@kubeflow'}", "without user, password and query"),
        ("kfp: {host: 'https://'}", "such as http://server:5000"),
        ("namespace: My_Team", "such as team-a"),
        ("resources: {default: {memory: 8 GB}}", "such as 2 or 500m"),
        ("resources: {default: {cpu: two}}", "such as 2 or 500m"),
        ("images: {compute: 'https://u:hunter2@registry/x', control: b}", "an image, such as"),
    ],
)
def test_what_every_pod_would_refuse_is_refused_with_its_line_and_an_example(tmp_path: Path, setting: str, words: str) -> None:
    values = yaml.safe_load(TEXT) | yaml.safe_load(setting)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises((InputError, StoreError)) as refused:
        load_profile(str(tmp_path / "p.yaml"))
    assert words in refused.value.what
    assert "p.yaml, line" in refused.value.where
    assert "hunter2" not in str(refused.value)
    assert "[a-z" not in str(refused.value), "a regular expression"
    assert "\\d" not in str(refused.value), "a regular expression"


def test_the_pods_of_a_training_may_be_a_range_and_those_of_other_stages_may_not() -> None:
    def resources(stage: str, nodes: object) -> Profile:
        return Profile.loads(json.dumps({"name": "x", **yaml.safe_load(TEXT), "resources": {stage: {"nodes": nodes}}}))

    training = resources("snapshot", {"min": 1, "max": 4}).resources_of("snapshot")
    assert (training.nodes.min, training.nodes.max) == (1, 4)
    fixed = resources("snapshot", 3).resources_of("snapshot")
    assert (fixed.nodes.min, fixed.nodes.max) == (3, 3)
    with pytest.raises(ValidationError, match="only trainings save states"):
        resources("sample", {"min": 1, "max": 4})
    with pytest.raises(ValidationError, match="the fewest pods, 5, are more than the most, 4"):
        resources("snapshot", {"min": 5, "max": 4})


@pytest.mark.parametrize("nodes", ["x", 0, True, 2.5])
def test_a_wrong_number_of_pods_is_said_to_be_one(nodes: object, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(json.dumps({**yaml.safe_load(TEXT), "resources": {"snapshot": {"nodes": nodes}}}))
    with pytest.raises(
        InputError, match=r"resources.snapshot.nodes.* must be a whole number from 1 on, or a range such as {min: 1, max: 4}"
    ):
        load_profile(str(tmp_path / "p.yaml"))
