"""The stage `metrics` as Kubeflow Pipelines sees it."""

from components.kubeflow_task import stage_component
from components.metrics.viewer import show_metrics

component = stage_component("metrics", show_metrics)
