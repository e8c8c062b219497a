"""Whether what answers at an address is the service that it should be, told from its answer."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

from edm2core.addresses import shown

MOST_SHOWN = 80  # characters


def unlike_json(body: bytes | str, status: int, headers: Mapping[str, str]) -> str:
    """In words, what an answer is that should have been a JSON object; empty where it is one.

    A page is called by its title, a redirection by where it leads.
    """
    if 300 <= status < 400:
        return f"a redirection to {shown(headers.get('Location') or 'nowhere').partition('?')[0]}"
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        found: Any = json.loads(text)
    except ValueError:
        return page(text) or f"no JSON: {' '.join(text.split())[:MOST_SHOWN] or 'nothing'}"
    return "" if isinstance(found, dict) else f"no JSON object: {text.strip()[:MOST_SHOWN]}"


def page(text: str) -> str:
    """In words, which web page a text is; empty where it is none."""
    begin = text.lstrip("\ufeff \t\r\n")[:4096]
    if not re.match(r"<(!doctype html|html|head|body)\b", begin, re.IGNORECASE):
        return ""
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    called = " ".join(html.unescape(title[1]).split())[:MOST_SHOWN] if title else ""
    return f"a web page, “{called}”" if called else "a web page"
