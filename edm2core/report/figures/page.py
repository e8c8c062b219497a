"""What a page needs to draw figures itself: the figures, the themes, and Vega, packed."""

import base64
import gzip
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any

import vl_convert

from edm2core.errors import InputError
from edm2core.paths import cache_folder
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
    cached = None
    with suppress(InputError, OSError):  # there is no home, or no such file
        cached = cache_folder() / "vega" / f"{version('vl-convert-python')}.txt"
        return cached.read_text(encoding="ascii")
    text = packed(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # its stub forgets the default
    if cached:
        with suppress(OSError):
            cached.parent.mkdir(parents=True, exist_ok=True)
            part = cached.with_name(f".{cached.name}.{os.getpid()}")
            part.write_text(text, encoding="ascii")
            part.replace(cached)
    return text


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
