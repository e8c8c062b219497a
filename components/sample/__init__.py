"""The stage `sample` as Kubeflow Pipelines sees it."""

from components.kubeflow_task import stage_component
from components.sample.viewer import show_grid

component = stage_component("sample", show_grid)
