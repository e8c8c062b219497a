"""The component of Kubeflow Pipelines that runs the stage `reference`."""

from components.kubeflow_task import stage_component

component = stage_component("reference")
