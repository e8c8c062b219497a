"""What a report says in a few lines: its headline verdicts, and what its frontiers say."""

from edm2core.report.collect import Report
from edm2core.report.frontier_words import answers_of, lines
from edm2core.report.verdict import answers, headlines


def conclusions(report: Report) -> list[str]:
    """A line each, which stands by itself: the terminal prints them at the end of a run."""
    return [*headlines(answers(report)), *lines(answers_of(report))]
