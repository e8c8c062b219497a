"""Checks of the user's own code before anything is run with it: what its family's protocol asks for, in words, within seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Outcome:
    """What a check found; `do_next` says what to do about a problem."""

    state: Literal["ok", "note", "problem"]
    what: str
    do_next: str = ""


@dataclass(frozen=True)
class Images:
    """The images that code is tried on."""

    channels: int
    resolution: int
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.resolution, self.resolution


Check = Callable[[], Outcome]
"""A check does its work when it is called. An error in own code ends it."""


def ok(what: str) -> Outcome:
    return Outcome("ok", what)


def problem(what: str, do_next: str) -> Outcome:
    return Outcome("problem", what, do_next)
