"""Errors as a person reads them: what happened, where, and what to do next."""

from edm2core.addresses import redacted
from edm2core.words import printable


class EdmError(Exception):
    """A failure with words for the person who has to act on it.

    `what` is one sentence; `where` a file, line, setting, key or URI; `do_next` the next thing to try.
    `permanent` says that trying again without a change cannot help. Addresses are shown without their secrets.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", do_next: str = "", permanent: bool = True) -> None:
        what, where, do_next = (redacted(printable(words)) for words in (what, where, do_next))
        super().__init__(what, where, do_next, permanent)
        self.what, self.where, self.do_next, self.permanent = what, where, do_next, permanent

    def __str__(self) -> str:
        rest = {"where": self.where, "what to do": self.do_next}
        return "\n".join([self.what, *(f"  {name}: {words}" for name, words in rest.items() if words)])


class InputError(EdmError):
    """What the user gave is wrong: a setting, a file, a name, an argument (exit code 2)."""

    exit_code = 2


class IntegrityError(EdmError):
    """Stored bytes are not the bytes that were recorded."""


class StoreError(EdmError):
    """The store cannot do what was asked: missing, full, read-only, unreachable."""


class Interrupted(EdmError):
    """Work stopped on request; everything needed to continue is saved (exit code 130)."""

    exit_code = 130


class MissingError(StoreError):
    """Something that should be in the store is not there."""
