"""The settings that may name own code, and what is passed to it."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edm2core.errors import InputError
from edm2core.own_code.signature import first_parameters
from edm2core.own_code.source import OwnCode
from edm2core.registry import OPTIMIZERS, SCHEDULES, SOLVERS, WEIGHTINGS, is_own


class Family(NamedTuple):
    """A family of choices that own code can add to. `first` is what its protocol calls the first parameter."""

    words: str
    section: str  # of a recipe
    name: str  # of the setting in that section
    stages: tuple[str, ...]  # whose results it decides: their keys hold its content
    positional: int = 0  # how many parameters are passed by position; all others are settings
    passed: tuple[str, ...] = ()  # settings of the section that it is given by name if it takes them
    first: str = ""
    replaces: tuple[str, ...] = ()  # built-in choices' settings in that section whose names its own may have

    @property
    def setting(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def article(self) -> str:
        return "an" if self.words[0] in "aeiou" else "a"


def _options(*tables: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings that only some of the built-in choices have."""
    return tuple(dict.fromkeys(option for table in tables for choice in table.values() for option in choice.options))


LOADING = ("snapshot", "sample", "probe", "diagnostics")  # stages that build a network
FAMILIES = (
    Family("network", "network", "use", LOADING, passed=("image_channels", "resolution", "classes", "augment_labels")),
    Family("data format", "data", "format", ("prepare",), 1, first="source"),
    Family("loss weighting", "diffusion", "weighting", ("snapshot", "diagnostics"), 2, first="sigma", replaces=_options(WEIGHTINGS)),
    Family("learning-rate schedule", "training", "lr_changes", ("snapshot",), 2, first="training", replaces=_options(SCHEDULES)),
    Family("optimizer", "training", "optimizer", ("snapshot",), 3, first="matrices", replaces=_options(OPTIMIZERS)),
    Family("solver", "sample", "solver", ("sample",), 4, first="denoise", replaces=_options(SOLVERS)),
)
METRIC = Family("metric", "metrics", "", ("metrics",), 2, first="samples")  # which no recipe names, but the experiment


def guessed(code: OwnCode, address: str, where: str) -> Family:
    """The family of a callable by its first parameter. Raises InputError if it is called as in no protocol."""
    names = first_parameters(code, address, where)
    for family in (*FAMILIES, METRIC):
        if names[:1] == [family.first] if family.first else set(names) & set(family.passed):
            return family
    known = ", ".join(f"{family.first} ({family.words})" for family in (*FAMILIES, METRIC) if family.first)
    what = f"The parameters of '{address}' do not say what it is."
    raise InputError(what, where=where, do_next=f"Say --as, or call the first parameter as the protocol does: {known}.")


def addresses(recipe: Any) -> Iterable[tuple[Family, str]]:
    """The own code that a recipe names, each with its family. A recipe is its settings, or their values by section as a file has them."""
    for family in FAMILIES:
        chosen = _part(_part(recipe, family.section), family.name)
        if is_own(chosen):
            yield family, str(chosen)


def _part(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, Mapping) else getattr(values, name, None)
