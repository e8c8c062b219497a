"""How a value was come by: the facts that decide whether two values may stand side by side."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edm2core.config.settings import ProbeSettings, SampleSettings
from edm2core.keys import keyed
from edm2core.report.collect import Report, Result

WORDS = {
    "steps": "sampler steps",
    "samples": "samples",
    "reference": "reference images",
    "extractor": "features",
    "t": "noise level t",
    "block": "block",
    "epochs": "probe epochs",
    "batch": "probe batch",
    "lr": "probe lr",
    "ema": "EMA",
}
FACTS = {"count": "samples", "blocks": "block"}  # settings that facts call otherwise


def protocol(report: Report, result: Result) -> dict[str, Any]:
    """The facts behind a metrics or probe result, by name; settings at their default that no one names are left out."""
    if result.task.stage == "probe":
        return _probe(report, result)
    return _samples(report, result)


def _samples(report: Report, result: Result) -> dict[str, Any]:
    samples, reference, extractor = (report.input(result, name) for name in ("samples", "reference", "extractor"))
    values = dict(samples.task.settings) if samples else {}
    values.pop("draw", None)
    settings = SampleSettings.model_validate(values)
    others = {k: v for k, v in keyed(settings).items() if k not in ("count", "steps", "eta", "ema", "draws")}
    return {
        "steps": settings.steps,
        "eta": settings.eta,
        "samples": result.metadata.get("n", settings.count),
        "reference": reference.metadata.get("n") if reference else None,
        "origin": reference.task.settings.get("origin") if reference else None,
        "extractor": _extractor(extractor),
        "ema": settings.ema[0],
        **others,
    }


def _extractor(result: Result | None) -> str | None:
    if result is None:
        return None
    name = str(result.task.settings.get("extractor"))
    return name if result.metadata.get("published_weights", True) else f"{name} (not the published weights)"


def _probe(report: Report, result: Result) -> dict[str, Any]:
    settings = ProbeSettings.model_validate(result.task.settings)
    pixels = report.snapshot(result) is None
    grid = len(settings.t) > 1 or len(settings.blocks) > 1 or "all" in settings.blocks
    others = {k: v for k, v in keyed(settings).items() if k in ("seed", "precision") or (k == "validation_share" and grid)}
    return {
        **({} if pixels else {"t": _list(settings.t), "block": _list(settings.blocks)}),
        "epochs": settings.epochs,
        "batch": settings.batch,
        "lr": settings.lr,
        "flip": settings.flip,
        **({} if pixels else {"ema": settings.ema}),
        **others,
    }


def apart(report: Report, result: Result, settings: Collection[str]) -> str:
    """The protocol as one short line for values that differ in these dotted settings: they are called swept, whatever they are."""
    section = "probe." if result.task.stage == "probe" else "sample."
    swept = {setting.removeprefix(section) for setting in settings if setting.startswith(section)}
    swept = {FACTS.get(name, name) for name in swept}
    return describe(protocol(report, result) | dict.fromkeys(swept, "swept"))


def describe(facts: dict[str, Any]) -> str:
    """The facts as one short line; the average that samples were drawn from stands beside it in every row, and is left out."""
    rest = dict(facts)
    if "samples" in facts:
        steps, eta, samples, reference, extractor, _ = (rest.pop(k) for k in ("steps", "eta", "samples", "reference", "extractor", "ema"))
        against = f"{reference} training images" if reference else "the training images"
        if origin := rest.pop("origin", None):
            against += f" by imported statistics ({origin})"
        line = f"{steps} steps, eta {_text(eta)}, {samples} samples vs {against}, {extractor} features"
    else:
        t, block, ema = (rest.pop(k, None) for k in ("t", "block", "ema"))
        epochs, batch, lr, flip = (rest.pop(k) for k in ("epochs", "batch", "lr", "flip"))
        grid = "," in f"{t}{block}" or block == "all"
        what = "linear classifier on raw pixels" if t is None else f"linear probe {'grid ' if grid else ''}t={t} {block}"
        line = f"{what}, {epochs} epochs, batch {batch}, lr {_text(lr)}"
        line += ("" if flip else ", no flip") + (f", EMA {ema}" if ema else "")
        line += ", cell chosen on validation images" if grid else ""
    return ", ".join([line, *(f"{WORDS.get(k, k)} {_text(v)}" for k, v in sorted(rest.items()))])


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What differs, in words, among the facts that both state."""
    return [
        f"{WORDS.get(k, k)} {_text(ours[k])} instead of {_text(theirs[k])}"
        for k in theirs
        if ours.get(k) is not None and theirs[k] is not None and ours[k] != theirs[k]
    ]


def _list(values: Any) -> str:
    return ",".join(str(v) for v in values)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
