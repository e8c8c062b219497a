"""The stages: one table from which planning, launching, Kubeflow's components, `edm2 doctor` and the report take what they know of each."""

from __future__ import annotations

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
    does: str  # for whoever reads its component in Kubeflow: a sentence
    words: str = ""  # what reports call it; empty: its name
    version: int = 1  # of its numbers, where no line of `versions.CHANGES` concerns the settings
    file: str = ""  # empty: as its name
    settings: type[Settings] | None = None  # says which settings are keyed; None: all are
    output: str = ""  # what its result is called as a Kubeflow artifact; empty: as the stage
    kind: Literal["Artifact", "Dataset", "Metrics", "Model"] = "Artifact"  # of that artifact; nothing reads one of Metrics
    read_as: str = ""  # what those that need its result call this input; empty: as the output
    imports_torch: bool = True
    splits_work: bool = False  # among several processes, so it can use several GPUs; any other uses one at most
    reads_sources: bool = False  # reads what users bring or what is published, so its pods may download

    def __post_init__(self) -> None:
        for field, default in (("words", self.name), ("file", self.name), ("output", self.name)):
            object.__setattr__(self, field, getattr(self, field) or default)
        object.__setattr__(self, "read_as", self.read_as or self.output)

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
        "Read another implementation's checkpoint, for a training that goes on from it.",
        words="checkpoint",
        version=2,
        settings=CheckpointSettings,
        kind="Model",
        reads_sources=True,
    ),
    Stage(
        "snapshot",
        "Train a trajectory up to one epoch, or wait until the job that trains it is there.",
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
        "Take the training images' statistics in the extractor's features.",
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
        "Compare our extractor and reference statistics with what others have of the same data.",
        settings=CalibrationSettings,
        reads_sources=True,
    ),
)
STAGES = {stage.name: stage for stage in _TABLE}


def in_words(stage: str) -> str:
    """What a report calls the stage of a result; its name, if it is in no table: a training's stored averages, a later version's stage."""
    return STAGES[stage].words if stage in STAGES else stage
