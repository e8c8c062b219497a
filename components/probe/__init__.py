"""The stage `probe` as Kubeflow Pipelines sees it."""

from components.kubeflow_task import stage_component
from components.probe.viewer import show_probe

component = stage_component("probe", show_probe)
