"""How a value was come by: the facts that decide whether two values may stand side by side.

The content of an own metric and of an own solver is such a fact. That of an own network is not: networks are what is compared.
"""

from collections.abc import Collection
from typing import Any

from edm2core.config.settings import ProbeSettings, SampleSettings
from edm2core.own_code.source import brief_content
from edm2core.plan.keys import keyed
from edm2core.plan.plan import Plan
from edm2core.plan.probe_metrics import share_of_labels
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.registry import SOLVERS, is_own, own_package
from edm2core.report.collect import Report, Result
from edm2core.report.evaluations import evaluations_of, sampler_of

WORDS = {
    "steps": "sampler steps",
    "order": "solver order",
    "schedule": "noise levels",
    "samples": "samples",
    "reference": "reference images",
    "extractor": "features",
    "t": "noise level t",
    "block": "block",
    "epochs": "probe epochs",
    "batch": "probe batch",
    "lr": "probe lr",
    "flip": "probe flips",
    "crop": "probe crops",
    "seeds": "probe seeds",
    "ema": "EMA",
    "evaluations": "network evaluations of an image, guided ones twice:",
    "metric_code": "metric's code",
    "solver_code": "solver's code",
}
FACTS = {
    "count": "samples",
    "blocks": "block",
    "cached_draws": "features",
    "knn": "classifier",
    "few_shot": "labels",
}  # settings that facts call otherwise

SOLVER_OPTIONS = tuple(dict.fromkeys(option for solver in SOLVERS.values() for option in solver.options))
OWN = "own"  # the fact that holds an own solver's settings by name
FOLLOWS = {
    "solver": (*SOLVER_OPTIONS, OWN, "solver_code", "evaluations"),
    "steps": ("evaluations",),
    "schedule": ("rho", "sigma_min", "sigma_max", "evaluations"),
    "guidance": ("evaluations",),
}
"""What a setting's value decides about others: whether they have any effect, or their value."""


def protocol(report: Report, result: Result, metric: str = "") -> dict[str, Any]:
    """The facts behind a metric of a metrics or probe result, by name; settings at their default that no one names are left out."""
    if result.task.stage == "probe":
        return _probe(report, result, metric)
    return _samples(report, result)


def _samples(report: Report, result: Result) -> dict[str, Any]:
    samples, reference, extractor = (report.input(result, name) for name in ("samples", "reference", "extractor"))
    settings = sampler_of(samples.task) if samples else SampleSettings()
    others = {k: v for k, v in keyed(settings).items() if k not in ("count", "steps", "eta", "ema", "draws", OWN)}
    solver_code = samples.task.code.get(own_package(settings.solver)) if samples and is_own(settings.solver) else None
    metric_code = ", ".join(f"{package} {brief_content(content)}" for package, content in sorted(result.task.code.items()))
    evaluations = evaluations_of(samples) if samples and settings.guidance else None
    return {
        "steps": settings.steps,
        **({"eta": settings.eta} if "eta" in SOLVERS[settings.solver].options else {}),
        "samples": result.metadata.get("n", settings.count),
        "reference": reference.metadata.get("n") if reference else None,
        "origin": reference.task.settings.get("origin") if reference else None,
        "extractor": _extractor(extractor),
        "ema": settings.ema[0],
        **others,
        **({"guidance": _guidance(report, samples, settings)} if settings.guidance and samples else {}),
        **({"evaluations": evaluations} if evaluations is not None else {}),
        **({OWN: dict(settings.own)} if settings.own else {}),
        **({"solver_code": brief_content(solver_code)} if solver_code else {}),
        **({"metric_code": metric_code} if metric_code else {}),
    }


def _guidance(report: Report, samples: Result, settings: SampleSettings) -> str:
    """The guidance in words."""
    guidance = settings.guidance
    if guidance is None:
        return "none"
    by = f"by {guide_of(report.plan, samples.task)}" if guidance.guide else "classifier-free"
    where = f" at σ from {guidance.interval[0]:g} to {guidance.interval[1]:g}" if guidance.interval else ""
    return f"{guidance.weight:g}, {by}{where}"


def guide_of(plan: Plan, samples: Task) -> str:
    """The guide of samples in words, as it differs from the network that it guides: E · seed 1, epoch 200, EMA 0.100."""
    own, guide = plan.snapshot_of(samples), plan.guide_of(samples)
    ema = sampler_of(samples).guidance
    words = [f"EMA {ema.guide.ema}"] if ema and ema.guide else []
    if own is None or guide is None:
        return ", ".join(words)
    if guide.subject.epoch != own.subject.epoch:
        words.insert(0, f"epoch {guide.subject.epoch}")
    if guide.subject.seed != own.subject.seed:
        words.insert(0, f"seed {guide.subject.seed}")
    if trajectory_ref(guide) != trajectory_ref(own) and guide.short != own.short:
        words.insert(0, guide.short)
    return ", ".join(words)


def _extractor(result: Result | None) -> str | None:
    if result is None:
        return None
    name = str(result.task.settings.get("extractor"))
    return name if result.metadata.get("published_weights", True) else f"{name} (not the published weights)"


def _probe(report: Report, result: Result, metric: str) -> dict[str, Any]:
    settings = ProbeSettings.model_validate(result.task.settings)
    pixels = report.snapshot(result) is None
    names = ("precision", "exact", *(("validation_share",) if settings.holds_out else ()))
    others = {k: v for k, v in keyed(settings).items() if k in names}
    cell = {} if pixels else {"t": _list(settings.t), "block": _list(settings.blocks)}
    if settings.grid:
        cell["chosen on"] = _chosen_on(settings, metric)
    if metric == "knn_accuracy":
        return {"classifier": f"k-NN of {settings.knn} neighbours, cosine", **cell, "ema": settings.ema, **others}
    few = share_of_labels(metric)
    return {
        "protocol": settings.protocol,
        **cell,
        "epochs": settings.epochs,
        "batch": settings.batch,
        "lr": settings.lr,
        "flip": settings.flip,
        "crop": settings.crop,
        "features": _features(settings, few=bool(few)),
        "seeds": _list(settings.seeds),
        **({"labels": f"{few} %"} if few else {}),
        **({} if pixels else {"ema": settings.ema}),
        **others,
    }


def apart(report: Report, result: Result, metric: str, settings: Collection[str], *, beside_unguided: bool = False) -> str:
    """The protocol as one short line for values that differ in these dotted settings: they are called swept, whatever they are.

    What follows from a swept solver or from swept noise levels is left out. An unguided value stands beside guided ones only if asked.
    """
    section = "probe." if result.task.stage == "probe" else "sample."
    swept = {setting.removeprefix(section) for setting in settings if setting.startswith(section)}
    swept = {FACTS.get(name, name.partition(".")[0]) for name in swept}
    facts = protocol(report, result, metric)
    if "guidance" not in facts and not beside_unguided:
        swept -= {"guidance"}
    if OWN in facts:
        swept -= facts[OWN].keys() if "solver" in swept else set()
        facts[OWN] = {name: value for name, value in facts[OWN].items() if name not in swept}
    for leading in FOLLOWS.keys() & swept:
        facts = {name: fact for name, fact in facts.items() if name not in FOLLOWS[leading]}
        swept -= set(FOLLOWS[leading])
    if "solver" in swept:
        facts["eta"] = "the solver's"
    return describe(facts | dict.fromkeys(swept, "swept"))


def _chosen_on(settings: ProbeSettings, metric: str) -> str:
    return "held-out training images" if settings.holds_out and metric != "probe_accuracy_picked_on_test" else "the test images"


def _features(settings: ProbeSettings, *, few: bool) -> str:
    return f"cached ({settings.cached_draws} draws)" if settings.cached or few else "fresh"


def describe(facts: dict[str, Any]) -> str:
    """The facts as one short line; the average that samples were drawn from stands beside it in every row, and is left out."""
    rest = dict(facts)
    if "samples" in facts:
        steps, samples, reference, extractor, _ = (rest.pop(k) for k in ("steps", "samples", "reference", "extractor", "ema"))
        eta = f", eta {_text(rest.pop('eta'))}" if "eta" in rest else ""  # only some solvers have it
        against = f"{reference} training images" if reference else "the training images"
        if origin := rest.pop("origin", None):
            against += f" by imported statistics ({origin})"
        features = f", {extractor} features, by torch-fidelity" if extractor else ""  # own metrics compare the images themselves
        line = f"{steps} steps{eta}, {samples} samples vs {against}{features}"
    else:
        line = _probe_in_words(rest)
    own = rest.pop(OWN, {})
    return ", ".join([line, *(f"{WORDS.get(k, k)} {_text(v)}" for k, v in [*sorted(rest.items()), *own.items()])])


def _probe_in_words(rest: dict[str, Any]) -> str:
    """What is said of a probe in every case, taken out of `rest`."""
    t, block, ema, chosen_on, classifier = (rest.pop(k, None) for k in ("t", "block", "ema", "chosen on", "classifier"))
    where = f"{'grid ' if chosen_on else ''}t={t} {block}"
    after = [*([f"EMA {ema}"] if ema else []), *([f"cell chosen on {chosen_on}"] if chosen_on else [])]
    if classifier:
        return ", ".join([f"{classifier}, {where}", *after])
    protocol, labels, features, seeds = (rest.pop(k, None) for k in ("protocol", "labels", "features", "seeds"))
    epochs, batch, lr, flip, crop = (rest.pop(k) for k in ("epochs", "batch", "lr", "flip", "crop"))
    what = "linear classifier on raw pixels" if t is None else f"linear probe {where}"
    parts = [f"protocol {protocol}"] if protocol != "own" else []
    parts += [what, *([f"{labels} of the labels and as many steps as with all"] if labels else [])]
    parts += [f"{epochs} epochs", f"batch {batch}", f"lr {_text(lr)}", *([] if flip else ["no flip"])]
    parts += [f"crops out of {crop} pixels of padding"] if crop else []
    parts += [f"{features} features"] if features != "fresh" else []
    parts += [f"probe seed{'s' if ',' in seeds else ''} {seeds}"] if seeds != "0" else []
    return ", ".join([*parts, *after])


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
