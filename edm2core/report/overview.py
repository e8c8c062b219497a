"""What a list of runs shows of a run: its verdicts and the values that they are drawn from, in a file of a few kilobytes."""

import hashlib
import json
from typing import Any

from edm2core.report.collect import Report
from edm2core.report.compare import basis
from edm2core.report.frontier import compared_apart
from edm2core.report.frontier_words import answers_of, headline_answers
from edm2core.report.guidance import guidance_sweeps, leading
from edm2core.report.results import label, rows
from edm2core.report.sampled import Sampled
from edm2core.report.seeds import Measure, differences, measure_of, spreads
from edm2core.report.verdict import Verdict, verdicts
from edm2core.words import printable

FILE = "overview.json"


def as_overview(report: Report) -> str:
    """The verdicts and every recipe's mean at their epochs. Values may be ranked only where `comparable` is the same."""
    found = rows(report)
    over_seeds = spreads(found)
    answers = verdicts(over_seeds, differences(over_seeds), compared_apart(report))
    bases: dict[tuple[Measure, str], set[str]] = {}
    for row, result in found.items():
        bases.setdefault((measure_of(row), row.recipe or ""), set()).add(repr(basis(result)))
    facts = {
        "verdicts": [
            {"dataset": v.dataset, "label": label(v.metric), "kind": v.kind, "headline": v.headline, "sentence": v.sentence}
            for v in answers
        ]
        + [_of_sampled("frontier", answer.frontier, answer.sentence) for answer in headline_answers(answers_of(report))]
        + [_of_sampled("guidance", sweep, sweep.sentence) for sweep in leading(guidance_sweeps(report))],
        "values": [value for verdict in answers for value in _values(verdict, bases)],
    }
    return json.dumps(printable(facts), indent=1, allow_nan=False) + "\n"


def _of_sampled(kind: str, of: Sampled[Any], sentence: str) -> dict[str, Any]:
    """What a frontier or a sweep over guidance says, as a verdict in the list."""
    return {"dataset": of.dataset, "label": f"{of.title} · {label(of.metric)}", "kind": kind, "headline": True, "sentence": sentence}


def _values(verdict: Verdict, bases: dict[tuple[Measure, str], set[str]]) -> list[dict[str, Any]]:
    """One value a recipe, with a digest of all that it has to share with another to be held against it."""
    made = []
    for mean in verdict.means:
        held = (*verdict.measure, *sorted(bases[verdict.measure, mean.recipe]))
        made.append(
            {
                "dataset": verdict.dataset,
                "metric": verdict.metric,
                "label": label(verdict.metric),
                "direction": verdict.direction,
                "recipe": mean.recipe,
                "ema": verdict.ema,
                "epoch": verdict.epoch,
                "mean": mean.mean,
                "deviation": mean.deviation,
                "places": verdict.places,
                "seeds": len(mean.values),
                "n": verdict.n,
                "protocol": verdict.protocol,
                "headline": verdict.headline,
                "leads": mean.leads,
                "comparable": hashlib.sha256(repr(held).encode()).hexdigest()[:12],
            }
        )
    return made
