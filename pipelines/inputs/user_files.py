"""Files that the user brings: data, weights, checkpoints. Keys are made of their digests; for a cluster they are uploaded to its store."""

import re
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from edm2core import registry
from edm2core.addresses import is_url, shown
from edm2core.config.settings import DataSettings, Recipe
from edm2core.data.download import Listener
from edm2core.data.files import check_archive
from edm2core.data.formats.folders import Survey
from edm2core.data.headers import check_torch, opcodes
from edm2core.data.source import digest_of, source_digest
from edm2core.errors import InputError
from edm2core.metrics.gaussian import arrays_of
from edm2core.metrics.names import Metric
from edm2core.own_code.source import content_digest
from edm2core.paths import cache_folder
from edm2core.plan.checks import Request, check_data
from edm2core.plan.experiment import Experiment
from edm2core.plan.plan import Plan, plan
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from edm2core.registry import EXTRACTORS, INCEPTIONS, WEIGHT_FILES, WEIGHTS, is_own
from edm2core.store.base import Store
from edm2core.store.leases import Busy, acquire
from edm2core.store.results import load
from edm2core.store.uploaded_sources import is_stored, put, source_ref
from edm2core.worker.fetching import fetch_source

LOOK_S = 1.0  # between two checks whether somebody else's upload has ended


def planned(experiment: Experiment, accept_code: bool = False) -> Plan:
    """The plan of an experiment and of what the user brings for it; raises InputError as `resolve` does.

    With `accept_code`, trainings may go on from states that other science made.
    """
    tasks = plan(experiment, resolve(experiment))
    marked = (replace(task, accept_code=task.stage == "snapshot") for task in tasks)
    return replace(tasks, tasks=tuple(marked)) if accept_code else tasks


def reference_tasks(recipe: Recipe, extractor: str, weights: str | None) -> list[Task]:
    """The tasks that prepare the recipe's data, make the extractor and compute the reference statistics, in this order.

    Raises InputError if the data or the weights are missing.
    """
    sources = {WEIGHTS[extractor]: weights} if extractor in WEIGHTS else {}
    metric = Metric("fid" if extractor in INCEPTIONS else "fd", extractor)
    return list(planned(Experiment("", (recipe,), (0,), {recipe.name: ()}, {recipe.name: (metric,)}, False, False, sources, "")))


def resolve(experiment: Experiment) -> dict[str, str]:
    """The digests that `plan` asks for.

    Raises InputError for
    - a path that does not exist, and a checkpoint that is no file of torch.save;
    - metrics whose extractor has no weights, and weights that are another file than their name says, or another network's;
    - a reference without statistics in its features;
    - fewer data than what is measured needs.
    """
    by_source = {data: source_digest(data) for data in {recipe.data for recipe in experiment.recipes}}  # data may be large: each once
    digests = {f"data:{recipe.name}": by_source[recipe.data] for recipe in experiment.recipes}
    for start in {recipe.start for recipe in experiment.recipes if recipe.start}:
        check_torch(Path(start.checkpoint))
    digests |= {f"start:{recipe.name}": digest_of(Path(recipe.start.checkpoint)) for recipe in experiment.recipes if recipe.start}
    for reference in {recipe.reference for recipe in experiment.recipes if recipe.reference}:
        arrays_of(Path(reference.source), EXTRACTORS[reference.extractor].dimensions)
    digests |= {f"reference:{recipe.name}": digest_of(Path(recipe.reference.source)) for recipe in experiment.recipes if recipe.reference}
    digests |= {f"code:{name}": code.content for name, code in experiment.code.items()}
    left_out, surveys = absent(experiment), _surveys(experiment)
    for recipe in experiment.recipes:
        survey = surveys.get(recipe.data)
        if recipe.data.facts.survey and (survey is None or survey.revised):
            # The first version of the reader may have read other images. Of a URL this is not known.
            digests[f"revised:{recipe.name}"] = ""
        metrics = tuple(metric for metric in experiment.metrics[recipe.name] if metric.result not in left_out)
        check_data(Request(recipe, experiment.lines.get(recipe.name, str), metrics=metrics, probe=experiment.probe, survey=survey))
    used = {metric.extractor for metrics in experiment.metrics.values() for metric in metrics if metric.result not in left_out}
    return digests | {kind: weights_digest(kind, experiment.weights[kind]) for kind in {WEIGHTS[e] for e in used if e in WEIGHTS}}


def absent(experiment: Experiment) -> dict[str, str]:
    """The optional metrics that are left out because their extractor's weights are missing: by their name in results, and why."""
    asked = {metric for metrics in experiment.metrics.values() for metric in metrics}
    required = {WEIGHTS.get(metric.extractor) for metric in asked - experiment.optional}  # it is an error if these are missing
    left_out = {}
    for metric in sorted(asked & experiment.optional):
        kind = WEIGHTS.get(metric.extractor)
        if kind is None or kind in required:
            continue
        source, file = experiment.weights[kind], WEIGHT_FILES[kind]
        if source is None:
            left_out[metric.result] = f"The experiment names no weights of {file.words}. {file.get}"
        elif not is_url(source) and not Path(source).exists():
            left_out[metric.result] = f"There is no file {source}. {file.get}"
    return left_out


def weights_digest(kind: str, source: str | None) -> str:
    """The digest of an extractor's weights at a path or URL. That of published weights is shortened as published, wherever they are.

    Raises InputError if there are none, if the file is not torch's (but a web page that says 404), if its name ends with another digest
    than its own, and if it names weights as another network does.
    """
    file = WEIGHT_FILES[kind]

    def wrong(what: str, first: str = "") -> InputError:
        return InputError(what, where=f"{kind}_weights", do_next=f"{first} {file.get}".strip())

    if source is None:
        raise wrong(f"The metrics need the weights of {file.words}, and the experiment names none.")
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", shown(source))  # torch hub ends a file's name with the beginning of its SHA-256
    if is_url(source):
        if not named:
            raise wrong(f"The name of {source} does not end with its digest, so it could not be checked.")
        return f"sha256:{named[1]}"
    if not Path(source).exists():
        raise wrong(f"There is no file {source}.")
    try:
        check_torch(Path(source))
    except InputError as error:
        raise wrong(f"{source} is no file of weights. {error.what}", error.do_next) from error
    digest = digest_of(Path(source))
    if named and not digest.startswith(f"sha256:{named[1]}"):
        raise wrong(f"{source} is not what its name says: its digest is {digest}.")
    if file.published and digest.startswith(file.published):
        return file.published
    names = {text for _, text in opcodes(Path(source)) if isinstance(text, str)}
    unlike = [f"no '{name}'" for name in file.names if name not in names]
    unlike += [f"a '{name}', which is {whose}" for name, whose in file.others.items() if name in names]
    if unlike:
        raise wrong(f"{source} does not hold the weights of {file.words}: it has {unlike[0]}.")
    return digest


def _surveys(experiment: Experiment) -> dict[DataSettings, Survey]:
    """Surveys of the data that are images on this disk, from their names and headers.

    Raises InputError for a folder or zip that cannot be surveyed, and for a file that is no archive where one is needed.
    """
    surveyed = cache(lambda reader, source, share: registry.load(reader)(Path(source), share))  # it takes time, and recipes share data
    surveys: dict[DataSettings, Survey] = {}
    for data in dict.fromkeys(recipe.data for recipe in experiment.recipes):
        source = str(data.source)
        if not data.needs_source or is_own(data.format) or is_url(source):
            continue
        if data.facts.survey:
            surveys[data] = surveyed(data.facts.survey, source, data.test_share)
        elif not Path(source).is_dir():
            check_archive(Path(source))
    return surveys


def brought(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that read a source that the user brings."""
    return [task for task in tasks if STAGES[task.stage].reads_sources and task.settings.get("digest")]


def bring_here(tasks: Iterable[Task], store: Store, say: Callable[[str], None]) -> None:
    """Download sources whose URL has a secret. Tasks do not know the secret, and find the file in the folder of downloads.

    Raises as `upload`.
    """
    for task in brought(tasks):
        if shown(task.address) != task.address and load(store, task.ref) is None and not is_stored(store, task.settings["digest"]):
            say(f"downloading {shown(task.address)}")
            _fetch(task, say)


def upload(tasks: Iterable[Task], store: Store, say: Callable[[str], None]) -> None:
    """Put sources into the store for tasks that cannot read this machine's disk.

    Sources that are stored already, and those that only finished tasks read, are left out. `say` gets a line for each upload. Raises
    InputError for a source that is missing or whose bytes do not have its digest, StoreError if the store refuses.
    """
    for task in brought(tasks):
        digest, source = task.settings["digest"], task.settings["source"]
        if load(store, task.ref) is None and not is_stored(store, digest):
            say(f"uploading {shown(source)} to {store.uri}")
            _put(store, digest, _fetch(task, say), say)


def put_code(experiment: Experiment, tasks: Iterable[Task], store: Store) -> None:
    """Put the experiment's own code into the store, where its tasks take it from wherever they run. Raises as `upload`."""
    for name, content in {name: content for task in tasks for name, content in task.code.items()}.items():
        digest = content_digest(content)
        if not is_stored(store, digest):
            with tempfile.TemporaryDirectory() as folder:
                _put(store, digest, experiment.code[name].copy(Path(folder) / name), lambda _: None)


def _put(store: Store, digest: str, path: Path, say: Callable[[str], None]) -> None:
    """Store a source under a lease, so that no gc removes it and nobody else uploads it at the same time."""
    said = False
    while not is_stored(store, digest):
        try:
            with acquire(store, source_ref(digest)):
                put(store, digest, path, cache_folder())
        except Busy as busy:
            if not said:
                say(f"waiting: {busy.what}")
            said = True
            time.sleep(LOOK_S)


def _fetch(task: Task, say: Callable[[str], None]) -> Path:
    """The source of a task on this machine's disk, downloaded if it is a URL."""
    return fetch_source(task.stage, task.settings | ({"source": task.address} if task.address else {}), Listener(say=say))
