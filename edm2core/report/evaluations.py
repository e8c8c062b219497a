"""How often a network was evaluated for an image of a set of samples."""

from edm2core.config.settings import SampleSettings
from edm2core.plan.tasks import Task
from edm2core.registry import is_own
from edm2core.report.collect import Result


def sampler_of(task: Task) -> SampleSettings:
    """The settings that a task draws samples by."""
    return SampleSettings.model_validate({name: value for name, value in task.settings.items() if name != "draw"})


def evaluations_of(samples: Result) -> int | None:
    """The evaluations for an image, guided ones counted twice: those that the result records, else those that follow from the settings.

    None for an own solver whose result records none: only counting tells.
    """
    recorded = samples.metadata.get("nfe")
    if isinstance(recorded, int):
        return recorded
    settings = sampler_of(samples.task)
    return None if is_own(settings.solver) else settings.evaluations
