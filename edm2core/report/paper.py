"""Tables for a paper, as LaTeX (booktabs) and as Markdown: recipe × metric, mean ± standard deviation over training seeds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edm2core.report.collect import Report
from edm2core.report.digits import rounded
from edm2core.report.figures import Styles
from edm2core.report.results import label, rows
from edm2core.report.seeds import Measure, SeedTable, bars, seed_tables, spreads
from edm2core.report.summary import Column, OverSeeds, RecipeLine, Table, tables
from edm2core.words import NOTHING

SIGNS = {
    **{"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$"},
    **{"·": r"$\cdot$", "σ": r"$\sigma$", "≤": r"$\le$", "≥": r"$\ge$", "—": "---", "–": "--"},
}


@dataclass(frozen=True)
class Entry:
    """A cell's text; a bold one leads."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table with a name for its files and a caption that holds all conditions. Its first column names the rows."""

    name: str
    caption: str
    groups: tuple[tuple[str, int], ...]  # titles over the columns after the first, and how many columns each is over
    heads: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


def paper_tables(report: Report, metrics: Collection[str] = ()) -> list[PaperTable]:
    """A report's tables: for each data set its results, then for each measure its means by epoch and its tested differences.

    `metrics` are the metrics to have, by their names in results; empty means all of them.
    """
    found = rows(report)
    by_seeds = seed_tables(spreads(found))
    styles = Styles.of(report)
    leading = bars(by_seeds.values())
    made = [_results(table, styles, leading, metrics) for table in tables(report, found) if table.columns]
    several = [(title, table) for title, table in by_seeds.items() if len(styles.seeds) > 1 and _wanted(table.metric, metrics)]
    for number, (title, table) in enumerate(several):
        alone = [other.metric for _, other in several].count(table.metric) == 1
        name = table.metric if alone else f"{table.metric}-{number}"
        made.append(_by_epoch(f"means-{name}", title, table))
        if table.differences:
            made.append(_differences(f"differences-{name}", title, table))
    return [table for table in made if table.rows]


def as_files(report: Report, metrics: Collection[str] = ()) -> dict[str, str]:
    """The tables by the names of their files: a .tex and a .md for each."""
    found = paper_tables(report, metrics)
    return {f"{table.name}.{end}": write(table) for table in found for end, write in (("tex", latex), ("md", markdown))}


def write_tables(report: Report, folder: Path, metrics: Collection[str] = ()) -> list[Path]:
    """Write the tables into a folder; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in as_files(report, metrics).items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def latex(table: PaperTable) -> str:
    """A `table` environment; no value stands in a comment."""
    lines = ["% needs \\usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.caption)}}}"]
    lines += [rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}", r"\toprule"]
    if any(title for title, _ in table.groups):
        over, rules, at = [""], [], 2
        for title, width in table.groups:
            over.append(rf"\multicolumn{{{width}}}{{c}}{{{_escaped(title)}}}" if width > 1 else _escaped(title))
            rules += [rf"\cmidrule(lr){{{at}-{at + width - 1}}}"] if width > 1 else []
            at += width
        lines += [" & ".join(over) + r" \\", *([" ".join(rules)] if rules else [])]
    lines += [" & ".join(map(_escaped, table.heads)) + r" \\", r"\midrule"]
    for row in table.rows:
        lines.append(" & ".join(rf"\textbf{{{_escaped(e.text)}}}" if e.bold else _escaped(e.text) for e in row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def markdown(table: PaperTable) -> str:
    """A table of GitHub's Markdown below its caption."""
    over = [title for title, width in table.groups for _ in range(width)] or [""] * (len(table.heads) - 1)
    titles = [table.heads[0], *(": ".join(filter(None, pair)) for pair in zip(over, table.heads[1:], strict=True))]
    lines = [[_plain(title) for title in titles], ["---", *["---:"] * (len(titles) - 1)]]
    lines += [[f"**{_plain(entry.text)}**" if entry.bold else _plain(entry.text) for entry in row] for row in table.rows]
    return "\n".join([_plain(table.caption), "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _wanted(metric: str, metrics: Collection[str]) -> bool:
    return not metrics or metric in metrics


def _results(table: Table, styles: Styles, leading: Mapping[Measure, tuple[int, set[str]]], metrics: Collection[str]) -> PaperTable:
    """Recipe × metric: at the last epoch, and the best of each training."""
    columns = [column for group in table.groups for column in group if _wanted(column.metric, metrics)]
    several_averages = len(styles.emas) > 1
    lines = tuple(
        (
            Entry(line.recipe + (f", EMA {line.ema}" if several_averages and line.ema else "")),
            *(entry for column in columns for entry in _entries(table, line, column, leading)),
        )
        for line in table.recipes
    )
    heads = [head for column in columns for head in _heads(table, column)]
    return PaperTable(
        f"results-{table.dataset}",
        _caption(table, columns, len(styles.seeds)),
        tuple((column.label, 2) for column in columns),
        ("Recipe", *heads),
        lines if columns else (),
    )


def _heads(table: Table, column: Column) -> tuple[str, str]:
    last, count = table.last(column), table.usual(column)[0]
    return f"epoch {last}" if last is not None else "last epoch", f"best of {count}" if count > 1 else "only value"


def _caption(table: Table, columns: Sequence[Column], seeds: int) -> str:
    what = f"Mean ± standard deviation over {seeds} training seeds" if seeds > 1 else "One training seed"
    said = []
    for column in columns:
        draws = table.usual(column)[2]
        conditions = [column.direction, *([f"n = {column.n}"] if column.n else []), *([f"mean of {draws} draws"] if draws > 1 else [])]
        said.append(f"{column.label}: {', '.join(conditions)}; {column.protocol}.")
    bold = " Bold at the last epoch: no recipe is shown to be better, and at least one to be worse (Welch's test, Holm's correction)."
    return f"Results on {table.dataset}. {what}.{bold if seeds > 1 else ''} {' '.join(dict.fromkeys(said))}".strip()


def _entries(table: Table, line: RecipeLine, column: Column, leading: Mapping[Measure, tuple[int, set[str]]]) -> tuple[Entry, Entry]:
    cell = line.cells.get(column)
    if cell is None:
        return Entry(NOTHING), Entry(NOTHING)
    epoch, leaders = leading.get(table.measure(column, line.ema), (None, set()))
    places = table.places(column)
    leads = cell.last is not None and cell.last.epochs[-1] == epoch and line.recipe in leaders
    return Entry(_text(cell.last, places) if cell.last else cell.state, leads), Entry(_text(cell.best, places) if cell.best else cell.state)


def _text(found: OverSeeds, places: int) -> str:
    spread = "" if found.deviation is None else f" ± {rounded(found.deviation, places)}"
    return rounded(found.mean, places) + spread


def _by_epoch(name: str, title: str, table: SeedTable) -> PaperTable:
    places = table.places
    lines = tuple(
        (
            Entry(recipe),
            *(
                Entry(_text(OverSeeds(s.mean, s.deviation, len(s.values), (epoch,)), places)) if (s := line.get(epoch)) else Entry(NOTHING)
                for epoch in table.epochs
            ),
        )
        for recipe, line in table.lines.items()
    )
    heads = ("Recipe", *(f"epoch {epoch}" for epoch in table.epochs))
    caption = f"{title} on {table.measure.dataset}: mean ± standard deviation over training seeds. {table.measure.protocol}."
    return PaperTable(name, caption, (), heads, lines)


def _differences(name: str, title: str, table: SeedTable) -> PaperTable:
    places = table.places
    lines = []
    for found in table.differences:
        judged = found.judgement
        interval = f"{rounded(judged.interval[0], places)} to {rounded(judged.interval[1], places)}" if judged else NOTHING
        numbers = (rounded(found.difference, places), interval, f"{judged.p:.2g}" if judged else NOTHING)
        texts = (f"{found.other.recipe} − {found.one.recipe}", str(found.epoch), *numbers, found.words)
        lines.append(tuple(Entry(text, bool(judged and judged.stands) and place == 0) for place, text in enumerate(texts)))
    heads = ("Pair", "Epoch", "Difference", "corrected interval", "corrected p", "Verdict")
    caption = f"{label(table.metric)} on {table.measure.dataset}: differences between recipes by Welch's test with Holm's correction."
    return PaperTable(name, caption, (), heads, tuple(lines))


def _escaped(text: str) -> str:
    return "".join(SIGNS.get(sign, sign) for sign in text)


def _plain(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]" else sign for sign in text)
