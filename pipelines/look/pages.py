"""The pages of a store, as HTML and JSON. Everything that comes from the store is escaped."""

import json
import time
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from edm2core.errors import MissingError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.stages import in_words
from edm2core.plan.tasks import Task
from edm2core.report.digits import rounded
from edm2core.store.summary import epochs_in_words
from edm2core.words import NOTHING, duration, plural, printable, size
from pipelines.look.runs import Look, RunView

PAGE = 100  # results on one page
STYLE, SCRIPT = "style.css", "serve.js"


class Pages:
    """The pages of one store."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def runs(self, live: bool = False) -> str:
        """All runs, with the best value of each headline metric."""
        runs = self._look.overviews()
        labels = list(dict.fromkeys(label for _, overview in runs for label in overview.best))
        return self._render("runs.html", live, runs=runs, labels=labels)

    def values(self, live: bool = False) -> str:
        """Every run's values in one table."""
        values = [(listed.id, value) for listed, overview in self._look.overviews() for value in overview.values]
        groups = {value["comparable"]: value["protocol"] for _, value in values}
        return self._render("values.html", live, values=values, protocols={key: f"P{n}" for n, key in enumerate(groups, 1)}, words=groups)

    def runs_json(self) -> str:
        return json.dumps(printable([run.to_json() for run in self._look.runs()]))

    def run(self, run: str, live: bool = False) -> str:
        """One run: its progress, tasks, pictures and files."""
        view = self._look.run(run)
        snapshots = [task.manifest for task in view.tasks if task.task.stage == "snapshot" and task.manifest]
        return self._render("run.html", live, run=view, overview=self._look.overview(run), snapshots=snapshots, pictures=_pictures(view))

    def run_json(self, run: str) -> str:
        view = self._look.run(run)
        tasks = [
            {
                "task": str(task.task.ref),
                "title": task.task.title,
                "state": task.state,
                "reason": task.reason or None,
                "progress": task.share,
                "words": task.words or None,
            }
            for task in view.tasks
        ]
        facts = {"run": view.listed.id, "state": view.listed.state, "counts": view.counts, "damaged": view.damaged, "tasks": tasks}
        return json.dumps(printable(facts))

    def log(self, run: str, stage: str, key: str, live: bool = False) -> str:
        """The end of what a task printed."""
        task, text, running = self._look.log(run, Ref(stage, key))
        return self._render("log.html", live, run=run, task=task, text=text, going=running)

    def stages(self) -> str:
        """The stages that have results."""
        return self._render("stages.html", stages=[(stage, in_words(stage), number) for stage, number in self._look.stages()])

    def stage(self, stage: str, page: int) -> str:
        """One page of a stage's results."""
        keys = self._look.keys(stage)
        if not keys:
            raise MissingError(f"This store has no results of a stage {stage}.")
        pages = -(-len(keys) // PAGE)
        page = max(1, min(page, pages))
        shown = keys[(page - 1) * PAGE : page * PAGE]
        results = list(zip(shown, self._look.results(Ref(stage, key) for key in shown), strict=True))
        return self._render("stage.html", stage=stage, results=results, number=len(keys), page=page, pages=pages)

    def result(self, stage: str, key: str) -> str:
        """One result: its files, its inputs, and how it was made."""
        manifest = self._look.result(Ref(stage, key))
        texts = {name: _yaml(getattr(manifest, name)) for name in ("metadata", "settings", "provenance")}
        return self._render("result.html", manifest=manifest, texts=texts, pictures=[n for n in manifest.files if n.endswith(".png")])

    def error(self, title: str, what: str, do_next: str) -> str:
        return self._render("error.html", title=title, what=what, do_next=do_next)

    def asset(self, name: str) -> tuple[str, str]:
        """A file that pages load, and its type."""
        if name == STYLE:
            styles = (_environment().get_template(sheet).render() for sheet in (STYLE, "serve.css"))
            return "".join(styles), "text/css; charset=utf-8"
        if name == SCRIPT:
            return (resources.files("pipelines.look") / "templates" / SCRIPT).read_text(encoding="utf-8"), "text/javascript; charset=utf-8"
        raise MissingError("There is no such page.")

    def _render(self, name: str, live: bool = False, **values: Any) -> str:
        template = _environment().get_template(name)
        values |= {"store": self._look.store.uri}
        page = "".join(template.blocks["live"](template.new_context(values))) if live else template.render(values)
        return str(printable(page))


@cache
def _environment() -> Environment:
    """The templates of these pages and of the report, with the words that they have for numbers."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("pipelines.look"), PackageLoader("edm2core.report")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "bytes": size,
        "duration": duration,
        "when": _when,
        "ago": lambda age_s: f"{duration(age_s)} ago" if age_s >= 1 else "just now",
        "percent": lambda share: f"{100 * share:.0f} %",
        "url": _url,
        "rounded": rounded,
        "plural": plural,
        "epochs": epochs_in_words,
    }
    return environment


def _pictures(view: RunView) -> list[tuple[str, str, Manifest]]:
    """The newest grid of samples of each recipe's first seed and average: its title, its path in the store, and its result."""
    sampled = [(each.task, each.manifest) for each in view.tasks if each.task.stage == "sample" and each.manifest]
    first: dict[str, int] = {}
    for task, _ in sampled:
        first[task.subject.recipe] = min(task.subject.seed, first.get(task.subject.recipe, task.subject.seed))
    latest: dict[tuple[Any, ...], tuple[Task, Manifest]] = {}
    for task, manifest in sampled:
        subject = task.subject
        if "grid.png" in manifest.files and not subject.draw and subject.seed == first[subject.recipe]:
            who = (*subject.training, subject.ema)
            if who not in latest or latest[who][0].subject.epoch < subject.epoch:
                latest[who] = task, manifest
    return [(task.title, manifest.path("grid.png"), manifest) for task, manifest in latest.values()]


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else NOTHING


def _yaml(values: dict[str, Any]) -> str:
    """The values in YAML, a line for each name. A nested value stands in one line if it fits."""
    plain = json.loads(json.dumps(values, default=str))
    nested = any(isinstance(value, dict | list) for value in plain.values())
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None if nested else False, allow_unicode=True, width=110)


def _url(path: Any) -> str:
    return quote(printable(str(path)), safe="/")
