"""The table of what claimed GPU time is for, from what a cluster tells of pods."""

from typing import Any

from tests.cluster.claimed import Pod, see, table

BEGUN = "2026-01-01T00:00:02Z"


def listed(gpus: int = 1, **state: dict[str, str]) -> dict[str, Any]:
    """A pod as the cluster lists it, placed at second 0."""
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "metadata": {"name": "a", "uid": "0123456789", "labels": {"edm2/stage": "sample"}},
        "spec": {"containers": [{"resources": {"limits": limits}}]},
        "status": {"conditions": [placed], "containerStatuses": [{"state": state}]},
    }


def seen(gpus: int = 1) -> dict[str, Pod]:
    """Looks at a pod that begins at second 2 and ends at second 22."""
    pods = dict[str, Pod]()
    see(pods, [listed(gpus)])
    see(pods, [listed(gpus, running={"startedAt": BEGUN})])
    see(pods, [listed(gpus, terminated={"startedAt": BEGUN, "finishedAt": "2026-01-01T00:00:22Z"})])
    return pods


def test_claimed_seconds_are_those_of_the_container_the_program_the_work_and_the_end() -> None:
    (pod,) = seen(gpus=2).values()
    assert pod.begun
    pod.starts, pod.commits = pod.begun + 5, pod.begun + 19
    assert pod.parts() == {"container": 2, "program": 5, "work": 14, "end": 1}
    assert "| sample | 1 | 44 | 4 | 10 | 28 | 2 | 64% |" in table([pod])


def test_the_last_commit_of_a_pod_whose_peer_commits_is_its_end() -> None:
    (pod,) = seen().values()
    assert pod.begun
    pod.starts = pod.begun + 5
    assert pod.parts() == {"container": 2, "program": 5, "work": 15, "end": 0}


def test_a_pod_without_gpus_claims_nothing_and_one_that_never_started_is_counted_as_unknown() -> None:
    assert seen(gpus=0) == {}
    (pod,) = seen().values()
    other = Pod("sample", 1, 0.0, 1.0, 10.0, 2.0, 9.0)
    assert table([pod, other]).endswith("Of 1 further pods not all times are known.")
    assert table([pod]).endswith("Of 1 further pods not all times are known.")
