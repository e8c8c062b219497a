"""Measures what networks and solvers of own code cost. Each is counted in a process of its own, so that nothing of it is imported here."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from edm2core.config.fields import Settings
from edm2core.config.settings import OwnNetworkSettings, SampleSettings
from edm2core.errors import InputError
from edm2core.own_code.source import OwnCode
from edm2core.paths import cache_folder
from edm2core.plan.experiment import Experiment
from edm2core.plan.network_cost import Cost
from edm2core.registry import is_own, own_package
from pipelines.estimate import Levels, solver_alone

PATIENCE_S = 120  # for one network or solver; importing torch takes most of it

Own = TypeVar("Own", bound=Settings)
Counted = TypeVar("Counted")


def network_costs(experiment: Experiment) -> dict[OwnNetworkSettings, Cost]:
    """The costs of the experiment's own networks. One that cannot be counted, or without torch on this machine, is left out."""
    networks = {recipe.network: recipe.network.use for recipe in experiment.recipes if isinstance(recipe.network, OwnNetworkSettings)}
    return dict(_counted("networks", networks, experiment.code, lambda values: Cost(*values)))


def solver_levels(experiment: Experiment) -> dict[SampleSettings, Levels]:
    """The noise levels at which the experiment's own solvers evaluate the network. Left out are the same as of networks."""
    samplers = {solver_alone(recipe.sample): recipe.sample.solver for recipe in experiment.recipes if is_own(recipe.sample.solver)}
    return dict(_counted("solvers", samplers, experiment.code, lambda levels: tuple(map(float, levels))))


def _counted(
    kind: str, addresses: Mapping[Own, str], code: Mapping[str, OwnCode], read: Callable[[list[Any]], Counted]
) -> Iterable[tuple[Own, Counted]]:
    """What `conformance` counts for each of these settings, whose own code has this address. Results are cached."""
    for settings, address in addresses.items():
        package, text = code[own_package(address)], settings.model_dump_json()
        name = sha256(f"{text} {package.content}".encode()).hexdigest()[:20]
        cached: Path | None = None
        with suppress(InputError, OSError, ValueError, TypeError):  # there is no home, no such file, or another program's
            cached = cache_folder() / kind / f"{name}.json"
            yield settings, read(json.loads(cached.read_text(encoding="utf-8")))
            continue
        with suppress(OSError, ValueError, TypeError, subprocess.SubprocessError), tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "edm2core.conformance.count", kind, text, str(package.copy(Path(folder)))]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S, encoding="utf-8")
            answer = done.stdout.strip().rpartition("\n")[2]  # what the process prints last
            yield settings, read(json.loads(answer))
            if cached:
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_text(answer, encoding="utf-8")
