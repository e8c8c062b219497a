"""What Kubeflow shows of a snapshot: training loss and learning rate up to it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from components.kubeflow_task import Done, stage_component
from components.viewer_output import show_page

if TYPE_CHECKING:
    from kfp.dsl import HTML, Output

WIDTH, HEIGHT, POINTS = 640, 220, 400


def show_curves(done: Done, curves: Output[HTML]) -> None:
    rows = [json.loads(line) for line in done.read("curve.jsonl").decode().splitlines()]
    show_page(done.manifest.title, _curve("loss", rows) + _curve("lr", rows), curves)


def _curve(name: str, rows: Iterable[dict[str, Any]]) -> str:
    """A quantity against the epoch as an SVG drawing; empty if fewer than two values are finite."""
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


component = stage_component("snapshot", show_curves)
