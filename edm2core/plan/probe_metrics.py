"""The accuracies of the probe stage by their names in results."""

import re

PROBES = {
    "probe_accuracy": "Linear probe, %",
    "probe_top5": "Linear probe, top 5, %",
    "probe_accuracy_picked_on_test": "Linear probe, cell picked on the test images, %",
    "knn_accuracy": "Nearest neighbours, %",
    "pixel_accuracy": "Raw pixels, %",
}
_FEW = re.compile(r"probe_accuracy_([\d.]+)pct")  # such as probe_accuracy_1pct


def share_of_labels(metric: str) -> str | None:
    """The percentage of the training labels that a few-shot probe knew; None for any other metric."""
    few = _FEW.fullmatch(metric)
    return few[1] if few else None


def is_probe(metric: str) -> bool:
    """Whether a metric is an accuracy of the probe stage, in percent."""
    return metric in PROBES or share_of_labels(metric) is not None


def probe_label(metric: str) -> str | None:
    """The name of an accuracy for a person; None for any other metric."""
    few = share_of_labels(metric)
    return f"Linear probe, {few} % of the labels, %" if few else PROBES.get(metric)
