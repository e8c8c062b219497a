"""The stage `diagnostics` as Kubeflow Pipelines sees it."""

from components.diagnostics.viewer import show_diagnostics
from components.kubeflow_task import stage_component

component = stage_component("diagnostics", show_diagnostics)
