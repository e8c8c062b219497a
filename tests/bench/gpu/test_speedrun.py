from typing import Any

import pytest

from bench.gpu.packages import LOCK, NEEDED, locked
from bench.gpu.speedrun import recipe_of, speedrun, summed_up


def row(time: float, images_per_s: float, seconds: float = 10.0) -> dict[str, Any]:
    return {"kind": "progress", "time": time, "images_per_s": images_per_s, "seconds": seconds, "peak_memory": int(time)}


def test_only_what_follows_compiling_and_warming_up_counts() -> None:
    events = [row(0, 1), row(10, 1), {"kind": "compiled"}, row(20, 2), row(30, 100), {"kind": "commit"}, row(42, 120), row(52, 110)]
    found = summed_up(events)
    assert found["best"] == 120
    assert found["in_use"] == pytest.approx((120 * 10 + 110 * 10) / 22)  # two seconds of the 22 went to a snapshot
    assert found["snapshots"] == 1
    assert (found["peak_bytes_first"], found["peak_bytes_last"]) == (30, 52)


def test_a_training_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="no finite gradient"):
        summed_up([{"kind": "failed", "what": "no finite gradient"}])


@pytest.mark.slow
def test_the_stage_itself_is_timed() -> None:
    found = speedrun(recipe_of("cifar10/G", rehearsal=True), images=40, seconds=12)
    assert 0 < found["in_use"] <= found["best"]
    assert found["snapshots"] >= 1


def test_the_lock_has_every_package_that_a_session_needs() -> None:
    names = locked(LOCK.read_text())
    assert len(names) == len(NEEDED)
    assert all("==" in name for name in names)
