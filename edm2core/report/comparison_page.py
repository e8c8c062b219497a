"""A comparison as one page, as JSON and as tables."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edm2core.report.compare import Comparison
from edm2core.report.figures import Figure, Styles, frontier_figures, metric_figures
from edm2core.report.figures.guidance import guidance_figures
from edm2core.report.figures.page import packed_figures, packed_vega
from edm2core.report.frontier_words import facts as frontier_facts
from edm2core.report.frontier_words import headline_answers
from edm2core.report.guidance import facts as guidance_facts
from edm2core.report.guidance import leading
from edm2core.report.html import by_metric, environment
from edm2core.report.published import others
from edm2core.report.results import distinct
from edm2core.report.seeds import DIFFERENCE, bars, difference_facts
from edm2core.report.summary import Cell, least_of_draws
from edm2core.report.write import table, write_files
from edm2core.words import printable

VALUE = ("experiment", "dataset", "recipe", "seed", "ema", "metric", "protocol", "n", "choice", "epoch", "value", "of", "draws", "error")


def write(found: Comparison, folder: Path) -> list[Path]:
    """Write comparison.html, comparison.json and its tables as CSV; returns where they are."""
    marks = [side.mark for side in found.sides]
    files = {
        "comparison.json": as_json(found),
        "best-and-last.csv": table(VALUE, _values(found)),
        "settings.csv": table(("setting", *marks), ({"setting": s.name, **s.values} for s in found.settings)),
        "differences.csv": table(DIFFERENCE, _differences(found)),
        "comparison.html": render(found),
    }
    write_files(folder, files)
    return [folder / name for name in files]


def as_json(found: Comparison) -> str:
    """Everything the page shows, by name."""
    sides = [
        {
            "experiment": side.mark,
            "name": side.report.name,
            "address": side.address,
            "tasks": len(side.report.results),
            "undone": [str(result.task.ref) for result in side.report.undone],
            "code_versions": distinct([r for r in side.report.results.values() if r.manifest], "code_version"),
        }
        for side in found.sides
    ]
    values = [{**asdict(row), "experiment": side.mark, "result": str(result.task.ref)} for row, (side, result) in found.rows.items()]
    facts = {
        "experiments": sides,
        "settings": [{"setting": setting.name, **setting.values} for setting in found.settings],
        "best_and_last": list(_values(found)),
        "differences": list(_differences(found)),
        "frontiers": [frontier_facts(answer) for answer in found.answers],
        "guidance": [guidance_facts(sweep) for sweep in found.guided],
        "results": values,
    }
    return json.dumps(printable(facts), indent=1, allow_nan=False) + "\n"


def figures(found: Comparison) -> list[Figure]:
    """All figures of a comparison."""
    return [*_frontiers(found), *guidance_figures(found.guided, found.styles), *metric_figures(found.curves, found.styles), *found.training]


def _frontiers(found: Comparison) -> list[Figure]:
    return frontier_figures([answer.frontier for answer in found.answers], found.styles)


def render(found: Comparison) -> str:
    """The page, complete in itself like a report."""
    curves, by_sampler, by_guidance = (
        metric_figures(found.curves, found.styles),
        _frontiers(found),
        guidance_figures(found.guided, found.styles),
    )
    drawn = [*by_sampler, *by_guidance, *curves, *found.training]
    known = {recipe.dataset: others(recipe.data.format) for side in found.sides for recipe in side.report.plan.recipes.values()}
    page = (
        environment()
        .get_template("compare.html")
        .render(
            found=found,
            styles=found.styles,
            others=known,
            least_of_draws=least_of_draws,
            protocols=list(dict.fromkeys((row.metric, row.protocol) for row in found.curves)),
            by_seeds=found.by_seeds,
            bars=bars(found.by_seeds.values()),
            curves=curves,
            drawn_frontiers=by_metric(by_sampler),
            frontiers=found.answers,
            by_sampler=headline_answers(found.answers),
            drawn={"guidance": by_guidance},
            guided=found.guided,
            guided_best=leading(found.guided),
            figures=packed_figures(drawn) if drawn else "",
            vega=packed_vega() if drawn else "",
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    return str(printable(page))


def _values(found: Comparison) -> Iterable[dict[str, Any]]:
    """Best and last of every line and column; `choice` is the rule by which an epoch was picked."""
    own = {side.called(recipe): (side.mark, recipe) for side in found.sides for recipe in Styles.of(side.report).recipes}
    for shown in found.tables:
        for line in shown.lines:
            mark, recipe = own[line.recipe]
            who = {"experiment": mark, "dataset": line.dataset, "recipe": recipe, "seed": line.seed, "ema": line.ema}
            for column, cell in line.cells.items():
                what = {"metric": column.metric, "protocol": column.protocol, "n": column.n}
                yield from ({**who, **what, **choice} for choice in _choices(cell))


def _choices(cell: Cell) -> Iterable[dict[str, Any]]:
    if cell.best:
        yield {"choice": f"best of {cell.count}", "epoch": cell.best[0], "value": cell.best[1]} | {
            "of": cell.count,
            "draws": cell.draws,
            "error": cell.error,
        }
    if cell.last:
        yield {"choice": "last epoch", "epoch": cell.last[0], "value": cell.last[1], "of": 1, "draws": None, "error": None}


def _differences(found: Comparison) -> Iterable[dict[str, Any]]:
    for shown in found.by_seeds.values():
        yield from map(difference_facts, shown.differences)
