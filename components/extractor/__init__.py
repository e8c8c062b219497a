"""The component of Kubeflow Pipelines that runs the stage `extractor`."""

from components.kubeflow_task import stage_component

component = stage_component("extractor")
