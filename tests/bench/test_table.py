import json
from pathlib import Path

import pytest

from bench.__main__ import RESULTS, ROWS, TABLE
from bench.compare import Side, Spread, in_turn, ratio, share
from bench.dag import longest_chain
from bench.gpu.rows import utilisation
from bench.network import flops
from bench.rows import Options, Result, Row, compared
from bench.scaling import table
from bench.table import render
from edm2core.config import load_recipe
from edm2core.plan.manifest import Ref
from edm2core.plan.network_cost import network_cost
from edm2core.plan.tasks import Task

ROW = Row("one", "one thing, batch {batch}", "≥ 2×", lambda options: Result(""))
RUNS = {
    "plain": [{"seconds": 4.0, "cpu_seconds": 8.0}, {"seconds": 6.0, "cpu_seconds": 8.0}],
    "product": [{"seconds": 2.0, "cpu_seconds": 2.0}, {"seconds": 2.0, "cpu_seconds": 2.0}],
    "limit": [{"rate": 100.0}, {"rate": 50.0}],
}


def entry(machine: str) -> dict[str, object]:
    result = Result("2.00 (1.90–2.10)×", "1 a second", "2 a second").to_json()
    return {"what": "one thing, batch 64", "result": result, "load": "1.0", "machine": {"processor": machine}, "commit": "abc"}


def test_a_row_without_a_measurement_says_so() -> None:
    assert "| one thing, batch 64 | ≥ 2× | not measured |" in render([ROW], {})


def test_every_row_names_the_machine_it_was_measured_on() -> None:
    text = render([ROW, Row("two", "", "", ROW.measure)], {"one": entry("small"), "two": entry("large")})
    assert "**Machine 1.** processor: small" in text
    assert "**Machine 2.** processor: large" in text
    assert "| 1 | abc |" in text
    assert "| 2 | abc |" in text


def test_the_committed_table_is_that_of_the_committed_measurements() -> None:
    assert TABLE.read_text() == render(ROWS, json.loads(RESULTS.read_text()))


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_ratio_and_share_are_taken_repeat_by_repeat() -> None:
    assert ratio(RUNS, "plain", "product").median == 2.5
    assert share(RUNS, "product", 100.0).median == pytest.approx((0.5 + 1.0) / 2)
    found = compared(RUNS, 100.0, "images", 8)
    assert found.reached == "2.50 (2.25–2.75)×"
    assert found.cpu == "4.00 (4.00–4.00)×"
    assert found.product == "4.0 (4.0–4.0) images/s"


def test_spread_is_the_median_and_the_middle_half() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_a_sides_environment_and_arguments_reach_its_process(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("import os\ndef made(n):\n    return lambda: {'seconds': n, 'seen': float(os.environ['SEEN'])}\n")
    side = Side("made:made", {"n": 3}, {"SEEN": "7", "PYTHONPATH": str(tmp_path)})
    found = in_turn({"a": side, "b": side}, repeats=2)
    assert [(run["seconds"], run["seen"]) for run in found["a"] + found["b"]] == [(3, 7.0)] * 4


def test_a_side_that_dies_is_named() -> None:
    with pytest.raises(RuntimeError, match="os:abort"):
        in_turn({"a": Side("os:abort")}, repeats=1)


def test_operations_are_those_that_plans_count() -> None:
    recipe = load_recipe("digits/E")
    assert flops("digits/E") == pytest.approx(network_cost(recipe.network, recipe.diffusion).flops, rel=0.01)


def test_the_longest_chain_follows_what_tasks_need() -> None:
    def task(key: str, *needs: str) -> Task:
        return Task("sample", 1, {}, {need: Ref("sample", need) for need in needs}, key, key)

    plan = [task("a"), task("b"), task("c", "a", "b"), task("d", "b")]
    seconds = {Ref("sample", name): value for name, value in {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}.items()}
    assert longest_chain(plan, seconds) == 6.0


def test_utilisation_is_of_the_data_sheets_peak_where_the_gpu_is_known() -> None:
    assert utilisation(494.5e12, "NVIDIA H100 80GB HBM3") == "MFU 0.50"
    assert utilisation(5e12, "Some GPU") == "5 TFLOP/s"


def test_only_the_products_processes_have_the_launchers_environment() -> None:
    assert Options(threads=3).bare["OMP_NUM_THREADS"] == "3"
    assert "GLIBC_TUNABLES" in Options(threads=3).tuned
    assert "GLIBC_TUNABLES" not in Options(threads=3).bare


def test_the_documents_table_of_many_gpus_is_the_models() -> None:
    assert table() in (TABLE.parents[1] / "docs" / "explanation" / "performance.md").read_text()
