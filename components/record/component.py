"""As Kubeflow Pipelines sees it."""


def record(plan: str, run: str, store: str) -> None:
    """Write the experiment and its plan into the run's folder, so that anybody can say what this run is for."""
    from components.record.packed import write

    write(plan, run, store)
