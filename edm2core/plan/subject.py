"""What a task's result is of: a training, and which snapshot, average or draw of it; and which training guides samples."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Self

from edm2core.config.describe import in_words
from edm2core.config.settings import GuideSettings, Recipe, SampleSettings

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


class Guide(NamedTuple):
    """A snapshot that guides: of which recipe's training, its seed, its epoch and its average."""

    recipe: Recipe
    seed: int
    epoch: int
    ema: str


def guide_settings(sample: SampleSettings) -> GuideSettings | None:
    """The guide that samples name; None without guidance, and where the network guides itself without classes."""
    return sample.guidance.guide if sample.guidance else None


def named_by(guide: GuideSettings, own: Recipe, recipes: Iterable[Recipe], swept: Mapping[str, Swept]) -> list[Recipe]:
    """The recipes that a guide's `recipe` can mean, one of each training: the guided recipe itself if it names none.

    A recipe of a sweep also goes by its name without the swept settings, since those that only evaluate share a training.
    """
    if guide.recipe is None:
        return [own]
    trained: list[Recipe] = []
    for recipe in recipes:
        names = {recipe.name} | ({swept[recipe.name].of, swept[recipe.name].training} if recipe.name in swept else set())
        if guide.recipe in names and not any(same_training(recipe, other) for other in trained):
            trained.append(recipe)
    return trained


def same_training(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes train the same network in the same way, from the same images."""
    return all(getattr(one, section) == getattr(other, section) for section in ("data", "network", "diffusion", "training", "start"))


def resolved(guide: GuideSettings, recipe: Recipe, seed: int, epoch: int, ema: str) -> Guide:
    """The guide of samples from this seed, epoch and average. `recipe` is the one whose training it is of."""
    return Guide(recipe, seed if guide.seed is None else guide.seed, guide.epoch or epoch, guide.ema or ema)
