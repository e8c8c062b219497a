"""An experiment's sweep: each of its recipes at each value of a setting is a recipe of its own, cifar10/E lr=0.01."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from edm2core.config.fields import Settings, is_keyed
from edm2core.config.recipes import lay
from edm2core.config.settings import DiffusionSettings, NetworkSettings, ProbeSettings, SampleSettings, TrainingSettings
from edm2core.config.validate import unknown
from edm2core.config.words import in_words
from edm2core.config.yaml_file import Document
from edm2core.errors import InputError

TRAINED: dict[str, type[Settings]] = {"network": NetworkSettings, "diffusion": DiffusionSettings, "training": TrainingSettings}
SECTIONS: dict[str, type[Settings]] = {**TRAINED, "sample": SampleSettings, "probe": ProbeSettings}
AVERAGES = ("sample.ema", "sample.draws")  # which a recipe has several of without a sweep


@dataclass(frozen=True)
class Swept:
    """Where a recipe stands in a sweep: `of` is the recipe that the experiment names, `at` its dotted settings' values."""

    of: str
    at: dict[str, Any]

    @property
    def name(self) -> str:
        """The recipe's name: that of the recipe it was made from, and the last part of each setting with its value."""
        return self._called(self.at)

    @property
    def training(self) -> str:
        """The name of its training, which all values of settings that only evaluate share."""
        return self._called({setting: value for setting, value in self.at.items() if setting.partition(".")[0] in TRAINED})

    def _called(self, at: Mapping[str, Any]) -> str:
        return " ".join([self.of, *(f"{setting.rpartition('.')[2]}={in_words('', value)}" for setting, value in at.items())])


def points(document: Document, sweep: Mapping[str, Sequence[Any]], fixed: Mapping[str, str]) -> list[dict[str, int]]:
    """Every combination of the swept settings' values, as the value's place in its list; one that is empty without a sweep.

    `fixed` says which settings have one value already, and where in the experiment. Raises InputError for a setting that is among
    them or decides no result, for a value that stands twice, and for two settings that names could not tell apart.
    """
    for setting, values in sweep.items():
        where = str(document.origin(("sweep", setting)))
        section, _, name = setting.partition(".")
        fields = SECTIONS[section].model_fields if section in SECTIONS else {}
        known = [f"{s}.{n}" for s, model in SECTIONS.items() for n, field in model.model_fields.items() if is_keyed(field)]
        known = [each for each in known if each not in AVERAGES]
        if name not in fields or setting not in known:
            words = f"'{setting}' cannot be swept, since it decides no result by itself"
            raise InputError(
                f"{words}." if name in fields else unknown("setting to sweep", setting, setting, known),
                where=where,
                do_next="Give all its values at once: it takes several."
                if setting in AVERAGES
                else f"Sweep a setting of {', '.join(list(SECTIONS)[:-1])} or {list(SECTIONS)[-1]}.",
            )
        if setting in fixed:
            raise InputError(f"'{setting}' stands in `{fixed[setting]}` too.", where=where, do_next="Keep one of them.")
        if alike := [other for other in sweep if other != setting and other.endswith(f".{name}")]:
            raise InputError(
                f"'{setting}' and '{alike[0]}' would both be called {name} in the recipes' names.",
                where=where,
                do_next="Sweep them in two experiments: what they share is computed once.",
            )
        for index, value in enumerate(values):
            if value in values[:index]:
                raise InputError(f"{in_words('', value)} stands more than once.", where=str(document.origin(("sweep", setting, index))))
    return [dict(zip(sweep, places, strict=True)) for places in product(*(range(len(values)) for values in sweep.values()))]


def lay_point(recipe: Document, document: Document, sweep: Mapping[str, Sequence[Any]], point: Mapping[str, int]) -> Document:
    """The recipe with the settings of one point of the sweep, which remember their lines in the experiment."""
    for setting, index in point.items():
        recipe = lay(recipe, setting, sweep[setting][index], document.origin(("sweep", setting, index)))
    return recipe
