"""What Kubeflow's viewers show of a result: small, self-contained, never a number that is not finite."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from html import escape
from typing import Any

from components.kubeflow_task import Done
from edm2core.report.results import is_probe
from edm2core.words import printable

LARGEST_MATRIX = 100  # classes; the metadata of a larger one is more than the viewer and its database take
PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px system-ui,sans-serif;margin:1rem;background:#fff;color:#222}}img{{max-width:100%;image-rendering:pixelated}}</style>
<h1 style="font-size:1.1rem">{title}</h1>{body}
"""
WIDTH, HEIGHT, POINTS = 640, 220, 400


def show_values(values: dict[str, Any], metrics: Any) -> None:
    """Publish the finite ones as metrics: Kubeflow fails a step that publishes another."""
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            metrics.log_metric(name, float(value))


def show_probe(done: Done, metrics: Any, confusion: Any) -> None:
    """A probe's accuracies, and its confusion matrix: rows are true classes, columns predicted ones."""
    show_values({name: value for name, value in done.manifest.metadata.items() if is_probe(name)}, metrics)
    found = json.loads(done.read("probe.json"))
    if len(found["classes"]) <= LARGEST_MATRIX:
        confusion.log_confusion_matrix([printable(str(name)) for name in found["classes"]], found["confusion"])


def show_diagnostics(done: Done, metrics: Any) -> None:
    """The magnitudes of each level's activations and weights, and their means."""
    found = done.manifest.metadata
    for what in ("activation", "weight"):
        levels = {f"{what} {level['level']}": level[what] for level in found["levels"]}
        show_values({f"{what} magnitude": found[what], **levels}, metrics)


def show_grid(done: Done, artifact: Any) -> None:
    """The first samples, as one picture."""
    picture = base64.b64encode(done.read("grid.png")).decode()
    _write(artifact, done, f'<img alt="the first samples" src="data:image/png;base64,{picture}">')


def show_curves(done: Done, artifact: Any) -> None:
    """Training loss and learning rate up to this snapshot."""
    rows = [json.loads(line) for line in done.read("curve.jsonl").decode().splitlines()]
    _write(artifact, done, _curve("loss", rows) + _curve("lr", rows))


def _write(artifact: Any, done: Done, body: str) -> None:
    with open(artifact.path, "w", encoding="utf-8") as file:
        file.write(printable(PAGE.format(title=escape(done.manifest.title), body=body)))


def _curve(name: str, rows: Iterable[dict[str, Any]]) -> str:
    """A quantity against the epoch as an SVG drawing; nothing where there are not two finite values."""
    points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None and "epoch" in row and math.isfinite(row[name])]
    points = points[:: -(-len(points) // POINTS) or 1]
    if len(points) < 2:
        return ""
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*points, strict=True))
    line = " ".join(f"{(x - left) / (right - left or 1) * WIDTH:.1f},{(high - y) / (high - low or 1) * HEIGHT:.1f}" for x, y in points)
    return (
        f'<figure style="margin:1rem 0"><figcaption>{name}: {low:.4g} to {high:.4g}, epoch {left:.4g} to {right:.4g}</figcaption>'
        f'<svg viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}" style="max-width:{WIDTH}px;border:1px solid #ccc">'
        f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/></svg></figure>'
    )
