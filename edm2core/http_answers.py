"""Tells from an answer whether the expected service sent it."""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

from edm2core.addresses import shown

MOST_SHOWN = 80  # characters


def unlike_json(body: bytes | str, status: int, headers: Mapping[str, str]) -> str:
    """Says what an answer is if it is not a JSON object; an empty string if it is one.

    A web page is named by its title, a redirection by its target.
    """
    if 300 <= status < 400:
        return f"a redirection to {shown(headers.get('Location') or 'nowhere').partition('?')[0]}"
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        answer: Any = json.loads(text)
    except ValueError:
        return page(text) or f"no JSON: {' '.join(text.split())[:MOST_SHOWN] or 'nothing'}"
    return "" if isinstance(answer, dict) else f"no JSON object: {text.strip()[:MOST_SHOWN]}"


def page(text: str) -> str:
    """Names the web page that a text is, by its title; an empty string if it is none."""
    start = text.lstrip("\ufeff \t\r\n")[:4096]
    if not re.match(r"<(!doctype html|html|head|body)\b", start, re.IGNORECASE):
        return ""
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    called = " ".join(html.unescape(title[1]).split())[:MOST_SHOWN] if title else ""
    return f"a web page, “{called}”" if called else "a web page"
