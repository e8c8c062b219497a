"""All figures of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from edm2core.report.by_setting import setting_figures
from edm2core.report.collect import Report, Result
from edm2core.report.confusion import confusion_figures
from edm2core.report.diagnostics import magnitude_figures, noise_figures
from edm2core.report.ema_widths import sweeps
from edm2core.report.figures import Figure, Styles, frontier_figures, metric_figures, probe_maps, sweep_figures, training_figures
from edm2core.report.figures.guidance import guidance_figures
from edm2core.report.frontier import compared_here, frontiers
from edm2core.report.guidance import guidance_sweeps
from edm2core.report.results import Row, rank, rows


@dataclass(frozen=True)
class Drawings:
    """A report's figures by the section that shows them, in the page's order."""

    frontier: list[Figure]
    guidance: list[Figure]
    curves: list[Figure]
    settings: list[Figure]
    widths: list[Figure]
    maps: list[Figure]
    confusion: list[Figure]
    training: list[Figure]
    magnitudes: list[Figure]
    noise: list[Figure]

    @property
    def all(self) -> list[Figure]:
        return [figure for field in fields(self) for figure in getattr(self, field.name)]


def drawings(report: Report, values: Mapping[Row, Result] | None = None, styles: Styles | None = None) -> Drawings:
    """A report's figures; `values` are its rows and `styles` its styles, where they are known already."""
    found = rows(report) if values is None else values
    own = styles or Styles.of(report)
    return Drawings(
        frontier=frontier_figures(frontiers(report), own),
        guidance=guidance_figures(guidance_sweeps(report, found), own),
        curves=metric_figures(compared_here(report, found), own),
        settings=setting_figures(report, found, own),
        widths=sweep_figures(sorted(sweeps(found), key=lambda sweep: rank(sweep.metric)), own),
        maps=probe_maps(report, own),
        confusion=confusion_figures(report, own),
        training=training_figures(report, own),
        magnitudes=magnitude_figures(report, own),
        noise=noise_figures(report, own),
    )
