"""The table of stages. Planning, launching, Kubeflow's components, `edm2 doctor` and the report take what they know of a stage from it."""

from dataclasses import dataclass
from typing import Literal

from edm2core.config.fields import Settings
from edm2core.config.settings import (
    CalibrationSettings,
    CheckpointSettings,
    DataSettings,
    DiagnosticsSettings,
    ProbeSettings,
    ReferenceSettings,
    SampleSettings,
)


@dataclass(frozen=True)
class Stage:
    """What is known of a stage without importing it. Its code is edm2core/stages/<file>.py, its Kubeflow component components/<name>/."""

    name: str
    does: str  # a sentence for people who see its component in Kubeflow
    words: str = ""  # what reports call it; empty: its name
    version: int = 1  # of its numbers; `versions.CHANGES` adds to it for some settings
    file: str = ""  # empty: as its name
    settings: type[Settings] | None = None  # the section that says which settings are keyed; None: all are
    output: str = ""  # its result's name as a Kubeflow artifact; empty: the stage's
    kind: Literal["Artifact", "Dataset", "Metrics", "Model"] = "Artifact"  # of that artifact; no task reads a result of kind Metrics
    read_as: str = ""  # the name of this input in tasks that read its result; empty: the output's
    imports_torch: bool = True
    splits_work: bool = False  # whether several processes share the work, so that it can use several GPUs
    reads_sources: bool = False  # whether it reads what users bring or what is published, so that its pods may download

    def __post_init__(self) -> None:
        for field in ("words", "file", "output"):
            object.__setattr__(self, field, getattr(self, field) or self.name)
        object.__setattr__(self, "read_as", self.read_as or self.output)

    @property
    def read_as_any(self) -> tuple[str, ...]:
        """The names of this input: `read_as`, and `guide` of what guides samples."""
        return (self.read_as, "guide") if self.read_as == "snapshot" else (self.read_as,)

    @property
    def module(self) -> str:
        """What `python -m` runs for it."""
        return f"edm2core.stages.{self.file}"


_TABLE = (
    Stage(
        "prepare",
        "Bring a data set to its prepared form.",
        words="data",
        settings=DataSettings,
        output="data",
        kind="Dataset",
        imports_torch=False,
        reads_sources=True,
    ),
    Stage(
        "start",
        "Read a checkpoint of another implementation, so that training can go on from it.",
        words="checkpoint",
        version=2,
        settings=CheckpointSettings,
        kind="Model",
        reads_sources=True,
    ),
    Stage(
        "snapshot",
        "Train a trajectory up to one epoch, or wait for the job that trains it.",
        words="training",
        file="train",
        kind="Model",
        splits_work=True,
    ),
    Stage(
        "ema",
        "Mix an average of another width from those that training stored.",
        words="mixing averages",
        output="average",
        kind="Model",
        read_as="snapshot",
    ),
    Stage(
        "sample",
        "Draw images from a snapshot.",
        words="sampling",
        settings=SampleSettings,
        output="samples",
        kind="Dataset",
        splits_work=True,
    ),
    Stage(
        "extractor",
        "Train or fetch the network whose features are compared.",
        words="feature extractor",
        kind="Model",
        reads_sources=True,
    ),
    Stage(
        "reference",
        "Compute the statistics of the training images in the extractor's features.",
        words="reference statistics",
        version=2,
        settings=ReferenceSettings,
        reads_sources=True,
    ),
    Stage("metrics", "Compare samples with reference statistics.", version=2, output="values", kind="Metrics"),
    Stage(
        "probe",
        "Train linear probes on the snapshot's features, or one on raw pixels for comparison.",
        version=2,
        settings=ProbeSettings,
        output="accuracy",
        kind="Metrics",
    ),
    Stage(
        "diagnostics",
        "Look into a snapshot: magnitudes by level, and the loss by noise level.",
        settings=DiagnosticsSettings,
        output="magnitudes",
        kind="Metrics",
    ),
    Stage(
        "calibration",
        "Compare our features and reference statistics with those of others for the same data.",
        settings=CalibrationSettings,
        reads_sources=True,
    ),
)
STAGES = {stage.name: stage for stage in _TABLE}


def in_words(stage: str) -> str:
    """The stage of a result in a report's words. One that is not in the table, such as stored averages, goes by its name."""
    return STAGES[stage].words if stage in STAGES else stage
