"""Text that any file, page and terminal can hold, whatever names came in."""

from __future__ import annotations

import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(found: Any) -> Any:
    r"""Plain data with every string as UTF-8 can hold it.

    Python reads a byte that is not UTF-8 as a lone surrogate, which no page and no file takes: it becomes the byte's number, such as \xe9,
    any other lone surrogate its own, such as \ud800.
    """
    if isinstance(found, str):
        return _SURROGATE.sub(_number, found)
    if isinstance(found, dict):
        return {printable(name): printable(part) for name, part in found.items()}
    return [printable(part) for part in found] if isinstance(found, list | tuple) else found


def _number(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
