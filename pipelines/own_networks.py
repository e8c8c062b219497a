"""Measures what networks of own code cost. Each is counted in a process of its own, so that nothing of it is imported here."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from edm2core.config.settings import OwnNetworkSettings
from edm2core.errors import InputError
from edm2core.own_code.source import OwnCode
from edm2core.paths import cache_folder
from edm2core.plan.experiment import Experiment
from edm2core.plan.network_cost import Cost
from edm2core.registry import own_package

PATIENCE_S = 120  # for one network; importing torch takes most of it


def measured(experiment: Experiment) -> dict[OwnNetworkSettings, Cost]:
    """The costs of the experiment's own networks. One that cannot be counted, or without torch on this machine, is left out."""
    networks = {recipe.network for recipe in experiment.recipes if isinstance(recipe.network, OwnNetworkSettings)}
    return dict(_measured(networks, experiment.code))


def _measured(networks: Iterable[OwnNetworkSettings], code: dict[str, OwnCode]) -> Iterable[tuple[OwnNetworkSettings, Cost]]:
    for network in networks:
        package = code[own_package(network.use)]
        settings = network.model_dump_json()
        name = sha256(f"{settings} {package.content}".encode()).hexdigest()[:20]
        cached: Path | None = None
        with suppress(InputError, OSError, ValueError, TypeError):  # there is no home, no such file, or another program's
            cached = cache_folder() / "networks" / f"{name}.json"
            yield network, Cost(*json.loads(cached.read_text(encoding="utf-8")))
            continue
        with suppress(OSError, ValueError, TypeError, subprocess.SubprocessError):
            answer = _counted(settings, package)
            yield network, Cost(*json.loads(answer))
            if cached:
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_text(answer, encoding="utf-8")


def _counted(settings: str, package: OwnCode) -> str:
    """What the counting process prints last. Raises CalledProcessError or TimeoutExpired if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edm2core.conformance.count", settings, str(package.copy(Path(folder)))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S, encoding="utf-8")
        return done.stdout.strip().rpartition("\n")[2]
