"""A figure: numbers, a drawing of them in Vega-Lite, and the words that go with it."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edm2core.report.figures.theme import Theme, config, params

Cells = list[dict[str, Any]]  # one number or a few, with what they are of, by column
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH, HEIGHT = 560, 300  # of a drawing in a file, in CSS pixels


class Mark(NamedTuple):
    """What a legend says of a value of a column: the recipe's colour by its number and shape, or the average's dash."""

    column: str
    value: str
    color: int | None = None
    shape: str = ""
    dash: int | None = None


class Reading(NamedTuple):
    """How a pointer reads lines: at the nearest value of the column `x`, one `value` for each combination of the columns `by`."""

    x: str
    title: str
    by: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One figure. Its drawing shows those rows that have the first value of each of `choices`."""

    id: str
    title: str
    caption: str
    rows: Cells
    spec: dict[str, Any]  # Vega-Lite, without data, size and colours of a theme
    legend: tuple[Mark, ...] = ()
    log: tuple[str, ...] = ()  # the axes, x or y, that a reader may make logarithmic
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # column → values that are shown one at a time
    reading: Reading | None = None
    has_seeds: bool = False  # whether the drawing can show single training seeds
    shape: tuple[int, int] = (WIDTH, HEIGHT)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def shown(self) -> Cells:
        first = {column: values[0] for column, values in self.choices.items() if values}
        return [row for row in self.rows if all(row[column] == value for column, value in first.items())]

    def showing(self, **chosen: Any) -> "Figure":
        """The figure with other values of its choices shown."""
        return replace(self, choices={name: [chosen.get(name, values[0])] for name, values in self.choices.items()})

    def as_csv(self) -> str:
        """All its numbers, whether shown or not."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def drawing(self, theme: Theme = "light", *, words: bool = True) -> dict[str, Any]:
        """The whole Vega-Lite specification, with data and legend, and with title and caption unless `words` is false."""
        width, height = self.shape
        drawn = {**self.spec, "data": {"values": self.shown}, "width": width, "height": height}
        own = [*params(theme), *drawn.pop("params", [])]
        outer: dict[str, Any] = {"$schema": SCHEMA, "config": config(theme), "padding": 12, "params": own}
        if not words:
            return {**outer, **drawn}
        soft = outer["config"]["title"]["subtitleColor"]
        below = {
            "orient": "bottom",
            "anchor": "start",
            "offset": 14,
            "fontSize": 12,
            "fontWeight": "normal",
            "lineHeight": 16,
            "color": soft,
        }
        chosen = " · ".join(f"{name} {values[0]}" for name, values in self.choices.items())
        drawn["title"] = {"text": self.title, "offset": 14, **({"subtitle": chosen} if chosen else {})}
        return {**outer, "title": {"text": textwrap.wrap(self.caption, width // 6), **below}, "vconcat": [drawn]}

    def chart(self) -> Any:
        """The figure as an Altair chart, which a notebook shows."""
        import altair  # half a second that no page and no file needs

        return altair.Chart.from_dict(self.drawing())
