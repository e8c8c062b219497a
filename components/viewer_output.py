"""What components show in Kubeflow: numbers as metrics, and small pages that need no other file and no script."""

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from edm2core.report.figures import Figure
from edm2core.report.figures.files import as_svg
from edm2core.words import printable

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body{{font:15px system-ui,sans-serif;margin:1rem;background:#fff;color:#222}}
svg,img{{max-width:100%;height:auto}}img{{image-rendering:pixelated}}
</style>
<h1 style="font-size:1.1rem">{title}</h1>{body}
"""


def show_values(values: dict[str, Any], metrics: Any) -> None:
    """Publish the finite numbers as metrics. Kubeflow fails a step that publishes any other."""
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            metrics.log_metric(name, float(value))


def show_page(title: str, body: str, artifact: Any) -> None:
    """Write a page; `title` is plain text, `body` HTML."""
    Path(artifact.path).write_text(printable(PAGE.format(title=escape(title), body=body)), encoding="utf-8")


def show_figures(title: str, figures: Iterable[Figure], artifact: Any) -> None:
    """Write a page of figures, drawn already: it needs no script. Without figures it says so."""
    drawn = "".join(f'<figure style="margin:1rem 0">{as_svg(figure)}</figure>' for figure in figures)
    show_page(title, drawn or "<p>There is nothing to draw yet.</p>", artifact)
