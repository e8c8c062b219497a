"""Axes and the marks that several figures share, as parts of Vega-Lite specifications."""

from collections.abc import Collection, Iterable
from typing import Any

from edm2core.report.results import higher_is_better, label

FEW = 8  # epochs up to which each has its tick
Part = dict[str, Any]


def epochs(values: Iterable[float], most: int = FEW) -> Part:
    """The horizontal axis of epochs, which are whole numbers: each has its tick where there are at most `most`."""
    found = sorted(set(values))
    ticks = {"values": found} if len(found) <= most and all(float(value).is_integer() for value in found) else {"tickMinStep": 1}
    scale = {"zero": False, "nice": False, "padding": 10, **_widened(found, least=1)}
    return {"field": "epoch", "type": "quantitative", "scale": scale, "axis": {"title": "epoch", "format": ",.0f", **ticks}}


def number(field: str, title: str, values: Iterable[float], **scale: Any) -> Part:
    """A vertical axis. Equal values get a range around them, in which they stand in the middle."""
    zero = {} if scale.get("type") == "log" else {"zero": False}
    return {
        "field": field,
        "type": "quantitative",
        "scale": {
            **zero,
            "nice": False,
            "padding": 8,
            **_widened(list(values)),
            **scale,
        },
        "axis": {"title": title, "tickCount": 5, "titleY": -8, "titleX": 0},
    }


def metric_title(metric: str) -> str:
    """A metric's name with its unit, and which way is better."""
    arrow, word = ("↑", "higher") if higher_is_better(metric) else ("↓", "lower")
    return f"{arrow} {label(metric)} · {word} is better"


def of_dataset(title: str, dataset: str, datasets: Collection[str]) -> str:
    """A title that names its data set where there are several."""
    return title + (f" · {dataset}" if len(datasets) > 1 else "")


def sentence(words: str) -> str:
    """Words, such as a protocol, as a sentence of a caption."""
    return f"{words[0].upper()}{words[1:]}."


def only(test: str) -> list[Part]:
    """A filter by an expression over a row."""
    return [{"filter": test}]


def _widened(values: list[float], least: float = 0.0) -> Part:
    """A domain for values that are all the same but for rounding."""
    if not values:
        return {}
    low, high = min(values), max(values)
    if high - low > 1e-6 * max(abs(low), abs(high)):
        return {}
    margin = max(abs(low) * 0.1, least) or 1.0
    return {"domain": [low - margin, high + margin], "nice": False}
