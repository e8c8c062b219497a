"""The report as one page that needs nothing but a browser."""

import shlex
from datetime import UTC, datetime
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from edm2core.own_code.settings import as_written
from edm2core.plan.manifest import Ref, diff_path
from edm2core.plan.probe_metrics import is_probe
from edm2core.plan.stages import in_words
from edm2core.report import verdict_drawing
from edm2core.report.by_setting import same_snapshots
from edm2core.report.calibrations import calibration
from edm2core.report.collect import Report, Result
from edm2core.report.digits import minus, percent, rounded
from edm2core.report.drawings import drawings
from edm2core.report.ema_widths import Sweep, sweeps
from edm2core.report.figures import Figure, Styles
from edm2core.report.figures.page import packed_figures, packed_vega
from edm2core.report.figures.theme import DASHES, OUTLINES, PALETTE
from edm2core.report.frontier import compared_apart, main_tables, trained
from edm2core.report.frontier_words import answers_of, headline_answers
from edm2core.report.guidance import guidance_sweeps, leading
from edm2core.report.notes import as_html
from edm2core.report.published import others
from edm2core.report.recheck import best_again
from edm2core.report.results import distinct, label, rank, rows
from edm2core.report.samples import neighbours, samples
from edm2core.report.sciences import said_of, sciences, several
from edm2core.report.seeds import bars, seed_tables, spreads
from edm2core.report.summary import least_of_draws
from edm2core.report.verdict import verdicts
from edm2core.words import NOTHING, count, duration, plural, printable, size

MOST_CURVES = 6  # that are drawn at once; more are opened on demand
MOST_ROWS = 3000  # of the table of every value: half a kilobyte each
SECTIONS = {
    "results": "Results",
    "frontier": "Frontier",
    "guidance": "Guidance",
    "notes": "Notes",
    "curves": "Curves",
    "samples": "Samples",
    "seeds": "Seeds",
    "settings": "Sweep",
    "widths": "Averages",
    "neighbours": "Nearest",
    "maps": "Probe",
    "confusion": "Confusion",
    "training": "Training",
    "inside": "Inside",
    "missing": "Missing",
    "provenance": "Provenance",
}


def render(report: Report) -> str:
    """The whole page, with Vega in it, compressed, where there is something to draw; loads nothing from anywhere."""
    found = rows(report)
    styles = Styles.of(report)
    known = report.plan.recipes
    drawn = drawings(report, found, styles)
    by_width = sorted(sweeps(found), key=lambda sweep: rank(sweep.metric))
    over = spreads(found, found)
    seeds = dict(sorted(seed_tables(over).items(), key=lambda table: (rank(table[1].metric), "EMA fixed" not in table[0])))
    by_seeds = seeds if len(styles.seeds) > 1 else {}
    samplers, by_sampler = compared_apart(report), answers_of(report)
    answers = verdicts(over, [difference for table in seeds.values() for difference in table.differences], samplers)
    by_guidance = guidance_sweeps(report, found)
    done = [result for result in report.results.values() if result.manifest]
    now = datetime.now(UTC)
    grids, nearest = samples(report, styles), neighbours(report, styles)
    template = environment().get_template("report.html")
    page = template.render(
        report=report,
        styles=styles,
        frontiers=[answer for answer in by_sampler if answer.latest],
        by_sampler=headline_answers(by_sampler),
        guided=by_guidance,
        guided_best=leading(by_guidance),
        drawn_frontiers=by_metric(drawn.frontier),
        verdicts=[verdict_drawing.drawn(verdict) for verdict in answers],
        behind={table.measure: f"seeds-table-{number}" for number, table in enumerate(by_seeds.values())},
        tables=main_tables(report, found),
        trained=trained(report),
        bars=bars(seeds.values()),
        least_of_draws=least_of_draws,
        protocols=list(dict.fromkeys((row.metric, row.protocol) for row in found)),
        others={name: others(recipe.data.format) for recipe in known.values() for name in [recipe.dataset]},
        drawn=drawn,
        by_seeds=by_seeds,
        same_snapshots=same_snapshots(report, found, styles),
        sweeps=_by_measure(by_width),
        figures=packed_figures(drawn.all) if drawn.all else "",
        samples=grids,
        neighbours=nearest,
        notes=as_html(report.run.notes),
        sections=_sections(
            notes=report.run.notes,
            frontier=drawn.frontier,
            guidance=drawn.guidance,
            curves=drawn.curves,
            seeds=by_seeds,
            settings=drawn.settings,
            widths=by_width,
            samples=grids,
            neighbours=nearest,
            maps=drawn.maps,
            confusion=drawn.confusion,
            training=drawn.training,
            inside=drawn.magnitudes,
            missing=report.undone or report.unreadable,
        ),
        best_again=best_again(report),
        most_rows=MOST_ROWS,
        most_curves=MOST_CURVES,
        go_on=_go_on(report),
        rows=found | rows(report, rechecks=True),
        recipes={name: yaml.safe_dump(as_written(r), sort_keys=False, default_flow_style=None) for name, r in known.items()},
        data=_data(report),
        stages=_stages(done),
        facts=_facts(done),
        said_of_sciences=said_of(report),
        sciences=sciences(report),
        several_sciences=several(report),
        calibrations=[calibration(manifest) for manifest in report.calibrations],
        packages=_packages(done),
        reproduce=_reproduce(report, done),
        made=now.strftime("%Y-%m-%d %H:%M UTC"),
        made_iso=now.isoformat(timespec="seconds"),
        vega=packed_vega() if drawn.all else "",
    )
    return str(printable(page))


@cache
def environment() -> Environment:
    """The templates, with the words that they have for numbers."""
    found = Environment(
        loader=PackageLoader("edm2core.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    found.filters |= {
        "value": value,
        "count": count,
        "duration": duration,
        "bytes": size,
        "label": label,
        "minus": minus,
        "rounded": rounded,
        "percent": percent,
        "plural": plural,
        "manifest": manifest,
        "diff": diff,
    }
    found.globals |= {"palette": PALETTE, "dashes": DASHES, "outlines": OUTLINES}
    return found


def _by_measure(found: list[Sweep]) -> list[list[Sweep]]:
    """The sweeps that each figure of `sweep_figures` is of, in their order."""
    groups: dict[tuple[str, str, str], list[Sweep]] = {}
    for sweep in sorted(found, key=lambda sweep: sweep.epoch):
        groups.setdefault((sweep.dataset, sweep.metric, sweep.protocol), []).append(sweep)
    return list(groups.values())


def by_metric(figures: list[Figure]) -> list[list[Figure]]:
    """A frontier's figures of each metric, which begin with that by evaluations."""
    groups: list[list[Figure]] = []
    for figure in figures:
        if figure.id.startswith("frontier-evaluations"):
            groups.append([])
        groups[-1].append(figure)
    return groups


def _sections(**content: object) -> list[tuple[str, str]]:
    """Ids and short titles of the sections that have something to show, in the page's order."""
    return [(name, title) for name, title in SECTIONS.items() if name in ("results", "provenance") or content.get(name)]


def value(number: float | None, metric: str = "") -> str:
    """A measured value with as many digits as mean something."""
    if number is None:
        return NOTHING
    return f"{number:.2f}" if is_probe(metric) or abs(number) >= 1 else f"{number:.3g}"


def manifest(ref: Ref) -> str:
    """The way from a report in its run's folder to a result's manifest, on disk as through `edm2 serve`."""
    return f"../../{ref.manifest}"


def diff(sha256: str) -> str:
    """The way from a report in its run's folder to how a changed working tree differed."""
    return f"../../{diff_path(sha256)}"


def _data(report: Report) -> list[dict[str, Any]]:
    """Every prepared data set: its source and digest, how many images, and the digests of the arrays."""
    return [
        {
            "name": result.task.subject.dataset,
            "ref": result.task.ref,
            "source": result.task.settings.get("source") or "scikit-learn's digits, part of its package",
            "digest": result.task.settings.get("digest"),
            "counts": result.metadata.get("counts") or {},
            "warning": result.metadata.get("warning"),
            "files": result.manifest.files if result.manifest else {},
        }
        for result in report.of_stage("prepare")
    ]


def _stages(done: list[Result]) -> list[dict[str, Any]]:
    """Tasks and seconds by stage; a training counts once, up to its last snapshot, since each snapshot's seconds include those before."""
    seconds: dict[str, dict[Any, float]] = {}
    for result in done:
        subject = result.task.subject
        who = subject.training if result.task.stage == "snapshot" else result.task.ref
        spent = float(result.provenance.get("seconds") or 0.0)
        stage = seconds.setdefault(result.task.stage, {})
        stage[who] = max(stage.get(who, 0.0), spent)
    counts = {stage: sum(r.task.stage == stage for r in done) for stage in seconds}
    return [{"stage": in_words(stage), "tasks": counts[stage], "seconds": sum(spent.values())} for stage, spent in seconds.items()]


def _facts(done: list[Result]) -> dict[str, list[str]]:
    seeds = sorted({str(r.task.subject.seed) for r in done if r.task.subject.recipe})
    return {
        "Code version": distinct(done, "code_version"),
        "Host": distinct(done, "host"),
        "Device": distinct(done, "device"),
        "Processes": distinct(done, "world_size"),
        "Python": distinct(done, "python"),
        "Training seeds": seeds,
        "Trainings that started from a checkpoint": _started(done),
        "Largest profile error of mixed averages": _largest(done, "error"),
        "Largest rounding of mixed averages, of the way to the weights": _largest(done, "rounding_of_way"),
        "Training steps with non-finite gradients, left out": _nonfinite(done),
        "Sampling seeds": sorted({str(r.task.settings["seed"]) for r in done if r.task.stage == "sample"}),
    }


def _started(done: list[Result]) -> list[str]:
    """Which trainings did not begin here, and from what."""
    return sorted(
        {
            f"{r.task.subject.recipe}: {start['implementation']}, epoch {start['epoch'] or 'unknown'}, {start['checkpoint']}"
            for r in done
            if (start := r.metadata.get("start"))
        }
    )


def _largest(done: list[Result], what: str) -> list[str]:
    """Of mixed averages; those that were mixed before it was told say nothing."""
    errors = [float(error) for r in done if r.task.stage == "ema" and (error := r.metadata.get(what)) is not None]
    return [f"{max(errors):.2%}"] if errors else []


def _nonfinite(done: list[Result]) -> list[str]:
    """How many steps of each training had gradients that are not finite, where there were any."""
    steps: dict[tuple[Any, Any], int] = {}
    for result in done:
        if result.task.stage == "snapshot":
            who = result.task.subject.training
            steps[who] = max(steps.get(who, 0), int(result.metadata.get("nonfinite_steps") or 0))
    return [f"{recipe}, seed {seed}: {number}" for (recipe, seed), number in steps.items() if number]


def _packages(done: list[Result]) -> dict[str, list[str]]:
    versions: dict[str, set[str]] = {}
    for result in done:
        for package, version in (result.provenance.get("packages") or {}).items():
            versions.setdefault(str(package), set()).add(str(version))
    return {package: sorted(found) for package, found in sorted(versions.items())}


def _go_on(report: Report) -> str:
    """The one command that does what is left."""
    typed = report.run.command
    return typed if typed.startswith("edm2 run ") else f"edm2 run {shlex.quote(f'{report.name}.yaml')} --store {shlex.quote(report.store)}"


def _reproduce(report: Report, done: list[Result]) -> str:
    """The commands that compute everything again."""
    versions = distinct(done, "code_version")
    revision = versions[-1].split("+")[-1] if versions else ""
    usable = revision and revision != "unknown" and not revision.endswith("-dirty")
    checkout = f"git checkout {shlex.quote(revision)}" if usable else f"# code version: {' and '.join(versions) or 'not recorded'}"
    file = shlex.quote(f"{report.name}.yaml")
    lines = [checkout, "make .venv/ready", f".venv/bin/edm2 run {file}    # the experiment file, as below"]
    return "\n".join([*lines, *([f"# what was typed here: {report.run.command}"] if report.run.command else [])])
