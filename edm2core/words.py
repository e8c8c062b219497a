"""Numbers in words, and text that any file, page and terminal can hold."""

import re
from typing import Any

NOTHING = "—"  # in place of a number that is not known

_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(data: Any) -> Any:
    r"""Plain data with every string as UTF-8 can hold it.

    Python reads a byte that is not UTF-8 as a lone surrogate, which no page and no file takes: it becomes the byte's number, such as \xe9,
    any other lone surrogate its own, such as \ud800.
    """
    if isinstance(data, str):
        return _SURROGATE.sub(_number, data)
    if isinstance(data, dict):
        return {printable(name): printable(part) for name, part in data.items()}
    return [printable(part) for part in data] if isinstance(data, list | tuple) else data


def duration(seconds: float | None) -> str:
    """Seconds in words: 0.4 s, 12 s, 2 min 05 s, 3 h 20 min; a dash for None."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in words: 1.5 kB, 2.2 MB, 10.0 GB."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    return f"{count / unit:,.1f} {name}"


def plural(number: int, noun: str) -> str:
    """A number of things: 1 value, 2 values."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def count(number: float | None) -> str:
    """A large number in three digits: 39.5 M; a dash for None."""
    if number is None:
        return NOTHING
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:g}"


def _number(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
