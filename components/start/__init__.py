"""The stage `start` as Kubeflow Pipelines sees it."""

from components.kubeflow_task import stage_component

component = stage_component("start")
