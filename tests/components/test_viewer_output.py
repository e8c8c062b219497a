import math
from pathlib import Path

from kfp.dsl import HTML, Metrics

from components.viewer_output import show_page, show_values


def test_only_finite_numbers_are_published() -> None:
    metrics = Metrics()
    show_values({"fid": 2.5, "kid": math.nan, "is": math.inf, "n": None, "probe_accuracy": 93}, metrics)
    assert metrics.metadata == {"fid": 2.5, "probe_accuracy": 93.0}


def test_a_pages_title_is_escaped(page: HTML) -> None:
    show_page("C <b>& E", "<p>body</p>", page)
    text = Path(page.path).read_text()
    assert "C &lt;b&gt;&amp; E" in text
    assert "<p>body</p>" in text
