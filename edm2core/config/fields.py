"""The types of settings, which settings decide results, and how strictly settings are read."""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from edm2core.registry import NOISE_SCHEDULES, Choice, Choices, Solver, is_own, load, meant_address, own_arguments

Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], Field(strict=False)]  # a list in YAML
NotEmpty = Annotated[tuple[Item, ...], Field(strict=False, min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Byte, Byte, Byte], Field(strict=False)]  # red, green and blue


def contradiction(words: str, *settings: str) -> PydanticCustomError:
    """The error of settings that cannot stand together. `settings` are their dotted names within the section that is checked."""
    return PydanticCustomError("contradiction", "{words}", {"words": words, "settings": settings})


def like(pattern: str, words: str) -> AfterValidator:
    """A check that a text matches the pattern. `words` say, with an example, what it must be."""

    def check(text: str) -> str:
        if not re.search(pattern, text):
            raise PydanticCustomError("must_be", "must be {words}", {"words": words})
        return text

    return AfterValidator(check)


def one_of(names: Collection[str], *, own: bool = False) -> AfterValidator:
    """A check that a table of the registry has the name. With `own`, or in a table of `Choices`, own code can be named too."""
    *others, last = (f"'{name}'" for name in names)
    words = f"{', '.join(others)} or {last}" if others else last
    own = own or isinstance(names, Choices)

    def check(name: str) -> str:
        if name not in names:
            meant = meant_address(name) if own else ""
            hint = f", or is '{meant}' of own code meant, with a colon?" if meant else ""
            raise PydanticCustomError("must_be", "must be {words}", {"words": f"{words}{hint}"})
        return name

    return AfterValidator(check)


def once(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Raises ValueError if a value occurs more than once."""
    doubled = sorted({str(v) for v in values or () if (values or ()).count(v) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands more than once")
    return values


Seeds = Annotated[NotEmpty[Annotated[int, Field(ge=0)]], AfterValidator(once)]


def falls(levels: Any) -> bool:
    """Whether these are at least two positive numbers, each below the one before."""
    numbers = isinstance(levels, list | tuple) and len(levels) > 1 and all(isinstance(level, int | float) for level in levels)
    return numbers and all(above > below for above, below in pairwise((*levels, 0)))


def falling(levels: str | tuple[float, ...]) -> str | tuple[float, ...]:
    """A check of a sampler's noise levels: the name of their spacing, or all of them from the highest down."""
    if isinstance(levels, str) and levels not in NOISE_SCHEDULES:
        raise ValueError(f"must be {' or '.join(NOISE_SCHEDULES)}, or a list of noise levels; it is '{levels}'")
    if isinstance(levels, tuple) and not falls(levels):
        raise ValueError("noise levels must be at least two and fall, each below the one before; 0 follows the last by itself")
    return levels


NoiseSchedule = Annotated[Listed[float] | str, AfterValidator(falling)]
Shares = Annotated[Listed[Annotated[float, Field(gt=0, lt=1)]], AfterValidator(once)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
Name = Annotated[str, like(NAME, "up to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit: mine-2")]
Digest = Annotated[
    str, like(r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})\Z", "sha256: or md5: and the digest in hexadecimal, such as sha256:9f86d0…")
]
Precision = Literal["fp32", "bf16", "fp16"]
Compile = Literal["auto", "always", "never"]
Weights = Literal["plain", "normalized", "forced"]
Init = Literal["he", "adm"]
GroupNormKind = Literal["group", "group_affine", "group_rms"]
PixelEpsilon = Literal["inside", "outside"]


def _pairs(values: Any) -> Any:
    """Names with values as pairs, sorted by name, so that sections stay immutable; lists become tuples."""
    pairs = sorted(values.items()) if isinstance(values, Mapping) else values
    return tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in pairs)


Own = Annotated[tuple[tuple[str, Any], ...], BeforeValidator(_pairs), PlainSerializer(dict)]
"""Settings of own code: pairs of name and value, in JSON an object. Their types are checked against the code's signature when read."""
OWN = "own"  # the field of a section that holds them, a name that no user writes or reads


def own_settings() -> Any:
    """The field of a section that holds the settings of own code."""
    return described((), "Settings of own code by name, filled in from its signature; a file writes them beside the section's others.")


def average_name(value: Any) -> str:
    """fixed, or a relative width with three decimals: 0.05, "0.05" and "0.050" are the same. Raises ValueError for anything else."""
    if value == "fixed":
        return "fixed"
    with suppress(TypeError, ValueError):
        if not isinstance(value, bool):
            return f"{check_width(float(value)):.3f}"
    raise ValueError(f"must be fixed, or a relative width below 0.288 with at most three decimals; it is {value!r}")


def weights_file(ema: str) -> str:
    """The file of a snapshot that holds an average: `fixed`, or a relative width such as `0.050`."""
    return f"ema-{ema}.safetensors"


def check_width(width: float) -> float:
    """Raises ValueError unless power-function averages can have this width and three decimals name it, since files are named so."""
    if not (0 < width < 12**-0.5 and abs(round(width, 3) - width) <= 1e-9):
        raise ValueError(f"must be a relative width below 0.288 with at most three decimals; it is {width}")
    return width


Ema = Annotated[str, BeforeValidator(average_name)]  # fixed, or the relative width of a power-function average
Widths = Annotated[Listed[Annotated[float, AfterValidator(check_width)]], AfterValidator(once)]


def described(default: Any, text: str = "", label: str = "", **more: Any) -> Any:
    """A setting with its one text.

    `text` is the sentence that errors, the reference and `edm2 recipes show` print; `label` is the few words by which tables and
    `edm2 recipes diff` call the setting. A default of `...` means that the setting must be given.
    """
    return Field(default, description=text or None, title=label or None, **more)


def unkeyed(default: Any, text: str = "", label: str = "", **more: Any) -> Any:
    """A setting that says how work is done, not what comes out. No key holds it."""
    return described(default, text, label, json_schema_extra={"keyed": False}, **more)


def is_keyed(field: FieldInfo) -> bool:
    """Whether a setting decides what comes out, so that keys hold it."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("keyed") is False)


class Settings(BaseModel):
    """A section of settings. It is immutable and refuses unknown names, wrong types and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Self:
        """This section, from a task's settings. The task may have settings of other sections too."""
        return cls.model_validate({name: values[name] for name in cls.model_fields})


class Choosing(Settings):
    """A section with settings that choose code by name, some of which takes other settings of the section."""

    choices: ClassVar[dict[str, tuple[Mapping[str, Choice | Solver], str]]]  # by setting: the registry's table, and what is chosen in words

    def options_of(self, setting: str) -> dict[str, Any]:
        """The settings that the code which `setting` chooses takes as keyword arguments. Own code is imported to see which."""
        chosen = getattr(self, setting)
        if is_own(chosen):
            return own_arguments(load(chosen), self.own)  # type: ignore[attr-defined]
        return {name: getattr(self, name) for name in self.choices[setting][0][chosen].options}

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Settings that are not given are at the choices' own defaults."""
        for setting, (table, _) in cls.choices.items():
            if isinstance(values, dict) and (choice := table.get(str(values.get(setting)))):
                values = {**choice.defaults, **values}
        return values

    @model_validator(mode="after")
    def _used(self) -> Self:
        """No setting is changed that other choices have, and the section's own choice has not."""
        for setting, (table, noun) in self.choices.items():
            chosen = getattr(self, setting)
            for name in dict.fromkeys(option for choice in table.values() for option in choice.options):
                default = type(self).model_fields[name].default
                if name not in table[chosen].options and getattr(self, name) != default:
                    words = "null" if default is None else list(default) if isinstance(default, tuple) else default
                    raise contradiction(f"the {noun} '{chosen}' has none; leave it out, or set it back to {words}", name, setting)
        return self


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a setting holds, if it holds one; it may also be null."""
    kinds = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in (annotation, *get_args(annotation))]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
