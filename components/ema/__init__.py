"""The component of Kubeflow Pipelines that runs the stage `ema`."""

from components.kubeflow_task import stage_component

component = stage_component("ema")
