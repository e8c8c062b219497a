"""What a task's result is of: a training, and which snapshot, average or draw of it."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from edm2core.config.describe import in_words

TRAINED = ("network", "diffusion", "training")  # the sections of a recipe that decide its training


@dataclass(frozen=True)
class Swept:
    """A recipe's point in its experiment's sweep: `of` is the recipe that it names, `at` the swept settings' values."""

    of: str
    at: dict[str, Any]

    @property
    def name(self) -> str:
        """The recipe's name, such as cifar10/E lr=0.01: that of `of`, then the last part of each swept setting with its value."""
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


@dataclass(frozen=True)
class Subject:
    """What a result is of. A result of no training, such as prepared data, has no recipe, and so no seed and no epoch."""

    dataset: str = ""
    recipe: str = ""
    seed: int = 0
    epoch: int = 0  # completed, of the snapshot
    sweep: Swept | None = None  # the recipe's point in the experiment's sweep
    ema: str = ""  # the average: fixed, or a relative width such as 0.050
    draw: int | None = None  # which of several sets of samples
    recheck: bool = False  # drawn again, since the snapshot was the best
    extractor: str = ""

    @property
    def training(self) -> tuple[str, int]:
        """Recipe and seed."""
        return self.recipe, self.seed

    def to_json(self) -> dict[str, Any]:
        """The fields that apply, as plans and manifests hold them."""
        values = asdict(self)
        if not self.recipe:
            del values["seed"], values["epoch"]
        return {name: value for name, value in values.items() if value not in ("", None) and value is not False}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The subject from its stored form, of any version. Unknown fields are left out."""
        known = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        return cls(**known | ({"sweep": Swept(**known["sweep"])} if "sweep" in known else {}))
