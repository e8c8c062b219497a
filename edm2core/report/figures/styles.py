"""What colour, shape and dash mean: a recipe, a recipe, and the average of the weights, the same in every figure."""

from dataclasses import dataclass
from typing import Any

from edm2core.report.collect import Report
from edm2core.report.figures.figure import Mark
from edm2core.report.figures.theme import DASHES, SHAPES


@dataclass(frozen=True)
class Styles:
    """The recipes, training seeds and averages of an experiment, in the order that decides on their colours and dashes."""

    recipes: list[str]
    seeds: list[int]
    emas: list[str]

    @classmethod
    def of(cls, report: Report) -> "Styles":
        subjects = [result.task.subject for result in report.results.values()]

        def values(name: str) -> list[Any]:
            return list(dict.fromkeys(getattr(s, name) for s in subjects if s.recipe and getattr(s, name) != ""))

        return cls(values("recipe"), sorted(values("seed")), values("ema"))

    def variant(self, seed: int, ema: str = "") -> str:
        """Seed and average, where the experiment has several."""
        parts = [f"seed {seed}" if len(self.seeds) > 1 else "", f"EMA {ema}" if ema and len(self.emas) > 1 else ""]
        return " · ".join(part for part in parts if part)

    def name(self, recipe: str, seed: int, ema: str = "") -> str:
        return " · ".join(part for part in (recipe, self.variant(seed, ema)) if part)

    def color(self, shown: list[str]) -> dict[str, Any]:
        """Vega-Lite's colour channel by the column `recipe`."""
        legend = {"values": shown, "title": None}
        return {"field": "recipe", "type": "nominal", "scale": {"domain": self.recipes}, "legend": legend}

    def shape(self, shown: list[str]) -> dict[str, Any]:
        """The shape channel by the column `recipe`: it tells recipes apart where colours do not, as beyond the eighth."""
        return {**self.color(shown), "scale": {"domain": self.recipes, "range": [_shape(index) for index in range(len(self.recipes))]}}

    def dash(self) -> dict[str, Any]:
        """The dash channel by the column `ema`."""
        dashes = [DASHES[index % len(DASHES)] for index in range(len(self.emas))]
        legend = {"title": "EMA", "symbolType": "stroke"} if len(self.emas) > 1 else None
        return {"field": "ema", "type": "nominal", "scale": {"domain": self.emas, "range": dashes}, "legend": legend}

    def marks(self, recipes: list[str], emas: list[str] | None = None) -> tuple[Mark, ...]:
        """The legend of these recipes, and of these averages where there are several."""
        numbers = {recipe: self.recipes.index(recipe) for recipe in recipes}
        colors = tuple(Mark("recipe", recipe, color=number, shape=_shape(number)) for recipe, number in numbers.items())
        dashes = tuple(Mark("ema", ema, dash=self.emas.index(ema)) for ema in emas or ())
        return colors + (dashes if len(dashes) > 1 else ())


def _shape(number: int) -> str:
    """Beyond the eighth recipe a colour comes again, with another shape."""
    return SHAPES[(number + number // len(SHAPES)) % len(SHAPES)]
