"""The stage `snapshot` as Kubeflow Pipelines sees it."""

from components.kubeflow_task import stage_component
from components.snapshot.viewer import show_curves

component = stage_component("snapshot", show_curves)
