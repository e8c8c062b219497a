"""Whose result a task's is: the training, and what of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from edm2core.plan.sweep import Swept


@dataclass(frozen=True)
class Subject:
    """What a result is of. One that belongs to no training, such as prepared data, has no recipe, and then no seed and epoch either."""

    dataset: str = ""
    recipe: str = ""
    seed: int = 0
    epoch: int = 0  # completed, of the snapshot
    sweep: Swept | None = None  # where the recipe stands in the experiment's sweep
    ema: str = ""  # the average: fixed, or a relative width such as 0.050
    draw: int | None = None  # which of several sets of samples
    recheck: bool = False  # drawn again, as the snapshot had been the best
    extractor: str = ""

    @property
    def training(self) -> tuple[str, int]:
        """Recipe and seed."""
        return self.recipe, self.seed

    def to_json(self) -> dict[str, Any]:
        """What applies, by name, as plans and manifests hold it."""
        values = asdict(self)
        if not self.recipe:
            del values["seed"], values["epoch"]
        return {name: value for name, value in values.items() if value not in ("", None) and value is not False}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The subject in stored form, of any version: what is not known here is left out."""
        known = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        return cls(**known | ({"sweep": Swept(**known["sweep"])} if "sweep" in known else {}))
