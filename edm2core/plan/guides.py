"""Guides of autoguidance: which training of the experiment a recipe's samples are guided by, and at which epoch."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edm2core.config.settings import GuideSettings, Recipe, SampleSettings
from edm2core.plan.subject import Swept


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
