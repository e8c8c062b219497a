"""What sections of settings are made of: the types of their values, which of them decide results, and how strictly they are read."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from edm2core.registry import EXTRACTORS, FORMATS, NETWORKS, SCHEDULES, SOLVERS, WEIGHTINGS

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Draws = Annotated[int, Field(ge=1, le=1000)]
Byte = Annotated[int, Field(ge=0, le=255)]
Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]

Colour = Annotated[tuple[Byte, Byte, Byte], Field(strict=False)]  # red, green and blue, 0 to 255


def like(pattern: str, words: str) -> AfterValidator:
    """Refuses, in words with an example, a text that is not as the pattern says."""

    def check(text: str) -> str:
        if not re.search(pattern, text):
            raise PydanticCustomError("like", "must be {words}", {"words": words})
        return text

    return AfterValidator(check)


def one_of(names: Collection[str]) -> AfterValidator:
    """Refuses a name that is none of a table of the registry."""
    *others, last = (f"'{name}'" for name in names)
    words = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"

    def check(name: str) -> str:
        if name not in names:
            raise PydanticCustomError("one_of", "{words}", {"words": words})
        return name

    return AfterValidator(check)


def once(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Raises ValueError where a value stands twice."""
    doubled = sorted({str(v) for v in values or () if (values or ()).count(v) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands more than once")
    return values


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1), AfterValidator(once)]
Levels = Annotated[tuple[Annotated[int, Field(ge=1, le=18)], ...], Field(strict=False, min_length=1)]
Shares = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False), AfterValidator(once)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
Name = Annotated[str, like(NAME, "up to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit: mine-2")]
Digest = Annotated[
    str, like(r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})\Z", "sha256: or md5: and the digest in hexadecimal, such as sha256:9f86d0…")
]
NetworkName = Annotated[str, one_of(NETWORKS)]
Weighting = Annotated[str, one_of(WEIGHTINGS)]
Schedule = Annotated[str, one_of(SCHEDULES)]
SolverName = Annotated[str, one_of(SOLVERS)]
FormatName = Annotated[str, one_of(FORMATS)]
BroughtExtractor = Annotated[str, one_of([name for name, extractor in EXTRACTORS.items() if extractor.weights])]
Precision = Literal["fp32", "bf16", "fp16"]
Compile = Literal["auto", "always", "never"]
Weights = Literal["plain", "normalized", "forced"]
Init = Literal["he", "adm"]
GroupNormKind = Literal["group", "group_affine", "group_rms"]
PixelEpsilon = Literal["inside", "outside"]


def average_name(value: Any) -> str:
    """fixed, or a relative width with three decimals: 0.05, "0.05" and "0.050" are the same. Raises ValueError for anything else."""
    try:
        width = float(value)
    except (TypeError, ValueError):
        width = -1.0
    if value != "fixed" and (isinstance(value, bool) or not _has_name(width)):
        raise ValueError(f"must be fixed, or a relative width below 0.288 with at most three decimals; it is {value!r}")
    return "fixed" if value == "fixed" else f"{width:.3f}"


def weights_file(ema: str) -> str:
    """The file of a snapshot that holds an average: `fixed`, or a relative width such as `0.050`."""
    return f"ema-{ema}.safetensors"


def _has_name(width: float) -> bool:
    """Whether there is a power-function average of this width, and three decimals name it."""
    return 0 < width < 12**-0.5 and abs(round(width, 3) - width) <= 1e-9


def check_width(width: float) -> float:
    """Raises ValueError for the width of an average that could not be called by its name, as averages are in files and mixes."""
    if not _has_name(width):
        raise ValueError(f"must be a relative width below 0.288 with at most three decimals; it is {width}")
    return width


Ema = Annotated[str, BeforeValidator(average_name)]  # an average: fixed, or the relative width of a power-function one
Widths = Annotated[tuple[Annotated[float, AfterValidator(check_width)], ...], Field(strict=False), AfterValidator(once)]


def unkeyed(default: Any, **constraints: Any) -> Any:
    """A setting that says how work is done, not what comes out: it is in no key."""
    return Field(default, json_schema_extra={"keyed": False}, **constraints)


def is_keyed(field: FieldInfo) -> bool:
    """Whether a setting decides what comes out, and so is part of a key."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("keyed") is False)


class Settings(BaseModel):
    """Immutable, strict: unknown names, wrong types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
