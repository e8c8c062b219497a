"""The stage `prepare` as Kubeflow Pipelines sees it."""

from components.kubeflow_task import stage_component

component = stage_component("prepare")
