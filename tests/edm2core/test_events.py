import time
from typing import Any

import pytest

from edm2core.events import in_words, line, readable


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"kind": "start", "generation": 1, "parameters": 301568, "images": 1437}, "started, 1,437 images, 301,568 parameters"),
        ({"kind": "start", "generation": 2}, "started for the 2. time"),
        ({"kind": "restart", "step": 12, "epoch": 2.0, "generation": 2}, "goes on from the state at step 12"),
        ({"kind": "commit", "ref": "snapshot/0123"}, "stored snapshot/0123"),
        (
            {"kind": "failed", "what": "The disk is full.", "where": "/x", "do_next": "Free some.", "rank": 0},
            "failed: The disk is full. (/x) Free some.",
        ),
        ({"kind": "warning", "message": "Slow."}, "warning: Slow."),
        ({"kind": "rendezvous", "number": 3, "processes": 2, "rank": 1}, "rendezvous 3 of 2 processes"),
    ],
)
def test_an_event_is_said_in_words_and_shows_no_field(event: dict[str, Any], words: str) -> None:
    assert in_words(event) == words


def test_a_line_of_a_log_is_readable_whoever_printed_it() -> None:
    assert readable("Traceback of somebody's") == "Traceback of somebody's"
    assert readable('[rank 0] @edm2 {"kind":"progress","done":1,"total":4,"loss":0.5}') == " 25%  loss 0.5"
    assert readable('@edm2 {"kind":"warning","message":"hot"}') == "warning: hot"
    assert readable('@edm2 {"kind":"commit","ref":"sample/abc","task":"t"}') == "stored sample/abc"


def test_an_events_line_begins_with_its_time() -> None:
    now = time.time()
    assert readable(line("warning", message="hot")).split("  ")[0] in {time.strftime("%H:%M:%S", time.localtime(now + s)) for s in (0, 1)}


def test_a_damaged_or_endless_line_stays_as_it_is() -> None:
    assert readable('@edm2 {"kind":"prog') == '@edm2 {"kind":"prog'
    assert readable('@edm2 {"kind":"progress","done":1,"total":0}') == "progress"
