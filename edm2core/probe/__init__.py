"""Classifiers on a denoiser's frozen features: linear ones at many cells (t, block), and nearest neighbours."""

from edm2core.probe.cells import PIXELS, Cell, Features, cells_of, denoiser_features, pixel_features
from edm2core.probe.features import Cached, Data, Fresh, Labelled, Source, Split
from edm2core.probe.heads import Heads
from edm2core.probe.scores import (
    accuracy,
    choose,
    confusion,
    few_of_each,
    hits,
    mean_and_deviation,
    nearest,
    percent,
    standard_error,
    stratified_split,
)

__all__ = [
    "PIXELS",
    "Cached",
    "Cell",
    "Data",
    "Features",
    "Fresh",
    "Heads",
    "Labelled",
    "Source",
    "Split",
    "accuracy",
    "cells_of",
    "choose",
    "confusion",
    "denoiser_features",
    "few_of_each",
    "hits",
    "mean_and_deviation",
    "nearest",
    "percent",
    "pixel_features",
    "standard_error",
    "stratified_split",
]
