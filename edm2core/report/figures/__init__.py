"""Figures of a report: pure functions from its numbers to Vega-Lite specifications. The page, files and Kubeflow draw the same ones."""

from edm2core.report.figures.curves import metric_figures
from edm2core.report.figures.figure import Figure
from edm2core.report.figures.frontier import frontier_figures
from edm2core.report.figures.maps import probe_maps
from edm2core.report.figures.styles import Styles
from edm2core.report.figures.training import curve_figures, training_curves, training_figures
from edm2core.report.figures.widths import sweep_figures

__all__ = [
    "Figure",
    "Styles",
    "curve_figures",
    "frontier_figures",
    "metric_figures",
    "probe_maps",
    "sweep_figures",
    "training_curves",
    "training_figures",
]
