"""What a report says in a few lines: its headline verdicts, and what its frontiers and sweeps over guidance say."""

from edm2core.report.collect import Report
from edm2core.report.frontier_words import answers_of, lines
from edm2core.report.guidance import guidance_sweeps, leading
from edm2core.report.results import label
from edm2core.report.verdict import answers, headlines


def conclusions(report: Report) -> list[str]:
    """A line each, which stands by itself: the terminal prints them at the end of a run."""
    guided = [f"{sweep.title} · {label(sweep.metric)}: {sweep.sentence}" for sweep in leading(guidance_sweeps(report))]
    return [*headlines(answers(report)), *lines(answers_of(report)), *guided]
