"""The one channel for progress: lines on standard output, structured ones marked `@edm2 {json}`."""

import json
import math
import sys
import time
from contextlib import suppress
from typing import Any

from edm2core.addresses import redacted
from edm2core.words import duration

MARK = "@edm2 "


def emit(kind: str, **fields: Any) -> None:
    """Print one structured event: see `line`."""
    sys.stdout.write(line(kind, **fields) + "\n")
    sys.stdout.flush()


def line(kind: str, **fields: Any) -> str:
    """A structured event as a line of output: progress, start, restart, commit, warning, …; non-finite numbers become null.

    Addresses in it are shown without their secrets.
    """
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
    return MARK + redacted(json.dumps({"kind": kind, "time": round(time.time(), 3), **clean}, separators=(",", ":")))


def parse(line: str) -> dict[str, Any] | None:
    """The event in a line of output, or None for an ordinary (or damaged) line."""
    if not line.startswith(MARK):
        return None
    try:
        event = json.loads(line[len(MARK) :])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def readable(text: str) -> str:
    """A line of a log for a person: an event as its time and its message or numbers, without the prefixes of ranks and pods."""
    event = parse(text[text.find(MARK) :]) if MARK in text else None
    if event is None:
        return text
    when = time.strftime("%H:%M:%S  ", time.localtime(event["time"])) if isinstance(event.get("time"), int | float) else ""
    if event["kind"] == "progress":
        with suppress(TypeError, ValueError, KeyError, ZeroDivisionError):
            return f"{when}{float(event['done']) / float(event['total']):4.0%}  {numbers(event)}".rstrip()
    return f"{when}{in_words(event)}"


def in_words(event: dict[str, Any]) -> str:
    """A sentence for any event other than progress."""
    kind, message = str(event["kind"]), event.get("message")
    if message:
        return str(message) if kind in ("compiled", "waiting") else f"{kind}: {message}"
    if kind == "start":
        begun = "started" if int(event.get("generation") or 1) == 1 else f"started for the {event['generation']}. time"
        counts = [f"{event[name]:,} {name}" for name in ("images", "parameters") if isinstance(event.get(name), int)]
        return ", ".join([begun, *counts])
    if kind == "restart":
        return f"goes on from the state at step {event.get('step')}"
    if kind == "rendezvous":
        return f"rendezvous {event.get('number')} of {event.get('processes')} processes"
    if kind == "commit":
        return f"stored {event.get('ref')}"
    if kind == "failed":
        where, then = f" ({event['where']})" if event.get("where") else "", f" {event['do_next']}" if event.get("do_next") else ""
        return f"failed: {event.get('what')}{where}{then}"
    return kind


def percent(event: dict[str, Any]) -> str:
    """How far a progress event's task is."""
    return f"{event['done'] / max(event['total'], 1):.0%}"


def numbers(event: dict[str, Any]) -> str:
    """The numbers of a progress event, for a person."""
    parts = [f"{name} {event[name]:.4g}" for name in ("epoch", "loss", "accuracy") if event.get(name) is not None]
    if event.get("images_per_s"):
        parts.append(f"{event['images_per_s']:,.0f} images/s")
    if event.get("eta_s"):
        parts.append(f"{duration(event['eta_s'])} left")
    return " · ".join(parts)
