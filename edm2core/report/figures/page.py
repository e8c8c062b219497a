"""What a page needs to draw figures itself: the figures, the themes, and Vega, packed."""

import base64
import gzip
import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

import vl_convert

from edm2core.paths import cached
from edm2core.report.figures.figure import Figure
from edm2core.report.figures.theme import config, params
from edm2core.words import printable


def packed_figures(figures: Iterable[Figure]) -> str:
    """The figures and both themes as compressed JSON, in base64. Numbers have as many digits as a drawing shows."""
    themes = {theme: {"config": config(theme), "params": params(theme)} for theme in ("light", "dark")}
    return packed(json.dumps(printable({"themes": themes, "figures": {figure.id: _facts(figure) for figure in figures}}), allow_nan=False))


@cache
def packed_vega() -> str:
    """Vega, Vega-Lite and what runs them without eval, compressed, in base64. A cache on disk saves seconds."""
    bundle = lambda: packed(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # noqa: E731 (its stub forgets the default)
    return cached(f"vega/{version('vl-convert-python')}.txt", bundle)


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _facts(figure: Figure) -> dict[str, Any]:
    """The figure's drawing without its theme and numbers, its numbers by column, and what the page has to know besides."""
    drawing = {name: part for name, part in figure.drawing().items() if name not in ("config", "params")}
    (inner,) = drawing["vconcat"]
    return {
        "drawing": {**drawing, "params": figure.spec.get("params", []), "vconcat": [{**inner, "data": None}]},
        "columns": {name: [_short(row.get(name)) for row in figure.rows] for name in figure.columns},
        "keyed": bool(figure.legend),
        "chosen": {column: values[0] for column, values in figure.choices.items()},
        "reading": figure.reading._asdict() if figure.reading else None,
        "shape": figure.shape,
    }


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
