"""An experiment's sweep: it makes a recipe of each recipe at each value of a setting, such as cifar10/E lr=0.01."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from edm2core.config.describe import in_words
from edm2core.config.fields import Settings
from edm2core.config.recipes import lay
from edm2core.config.settings import DiffusionSettings, NetworkSettings, ProbeSettings, SampleSettings, TrainingSettings
from edm2core.config.yaml_file import Document

TRAINED: dict[str, type[Settings]] = {"network": NetworkSettings, "diffusion": DiffusionSettings, "training": TrainingSettings}
SECTIONS: dict[str, type[Settings]] = {**TRAINED, "sample": SampleSettings, "probe": ProbeSettings}
AVERAGES = ("sample.ema", "sample.draws")  # a recipe takes several of these without a sweep


@dataclass(frozen=True)
class Swept:
    """A recipe's point in a sweep: `of` is the recipe that the experiment names, and `at` the values of the swept dotted settings."""

    of: str
    at: dict[str, Any]

    @property
    def name(self) -> str:
        """The recipe's name: that of `of`, then the last part of each swept setting with its value."""
        return self._called(self.at)

    @property
    def training(self) -> str:
        """The name of its training, without the settings that only evaluate: all their values share the training."""
        return self.without([setting for setting in self.at if setting.partition(".")[0] not in TRAINED])

    def without(self, settings: Collection[str]) -> str:
        """The recipe's name when these settings are not told."""
        return self._called({setting: value for setting, value in self.at.items() if setting not in settings})

    def _called(self, at: Mapping[str, Any]) -> str:
        values = {setting.rpartition(".")[2]: in_words("", value).replace("/", "-") for setting, value in at.items()}
        return " ".join([self.of, *(f"{name}={value}" for name, value in values.items())])  # a slash would end the data set's name


def points(sweep: Mapping[str, Sequence[Any]]) -> list[dict[str, int]]:
    """Every combination of the swept settings' values, each value by its index in its list. Without a sweep it is one empty combination."""
    return [dict(zip(sweep, indices, strict=True)) for indices in product(*(range(len(values)) for values in sweep.values()))]


def lay_point(recipe: Document, document: Document, sweep: Mapping[str, Sequence[Any]], point: Mapping[str, int]) -> Document:
    """The recipe with the settings of one combination of `points`. An error about one of them names its line in the experiment."""
    for setting, index in point.items():
        recipe = lay(recipe, setting, sweep[setting][index], document.origin(("sweep", setting, index)))
    return recipe
