"""Tells Kubeflow Trainer how far a training is, so that `kubectl get trainjob` shows it in `status.trainerStatus`.

The controller of Kubeflow Trainer 2.2 takes this where its feature gate TrainJobStatus is on. It then says in three variables where to send
it (kubeflow/trainer, docs/user-guides/trainjob-progress.md). Without them nothing is sent.
"""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3

from edm2core.events import emit

URL, CERTIFICATE, TOKEN = "KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_CA_CERT", "KUBEFLOW_TRAINER_SERVER_TOKEN"
EVERY_S = 5.0  # the least time between two messages, as Kubeflow Trainer asks
TIMEOUT_S = 5.0
MOST_FAILURES = 3  # in a row, after which nothing more is sent


class TrainerStatus:
    """Sends the latest progress from a thread of its own, so that training never waits for it. `environment` has the three variables."""

    def __init__(self, environment: Mapping[str, str], every_s: float = EVERY_S) -> None:
        self._url, self._certificate, self._token = (environment.get(name, "") for name in (URL, CERTIFICATE, TOKEN))
        self._every_s, self._latest, self._failures = every_s, dict[str, Any](), 0
        self._changed, self._closed = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def tell(self, done: float, eta_s: float, metrics: Mapping[str, float | None]) -> None:
        """Send how much of the training is done (0 to 1), the seconds left, and its numbers; those that are not known are left out."""
        if not self._url.startswith("https://"):
            return
        numbers = [{"name": name, "value": f"{value:.6g}"} for name, value in metrics.items() if value is not None]
        when = datetime.now(UTC).isoformat(timespec="seconds")
        with self._changed:
            self._latest = {
                "progressPercentage": int(100 * min(max(done, 0.0), 1.0)),
                "estimatedRemainingSeconds": max(round(eta_s), 0),
                "metrics": numbers,
                "lastUpdatedTime": when,
            }
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="trainer-status", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what was told last, if it was not sent yet. Waits for that no longer than a message may take."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        while self._failures < MOST_FAILURES:
            with self._changed:
                self._changed.wait_for(lambda: self._latest or self._closed)
                status, self._latest = self._latest, {}
            if not status:
                return
            self._send(status)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, self._every_s)

    def _send(self, status: Mapping[str, Any]) -> None:
        try:
            token = Path(self._token).read_text(encoding="utf-8").strip()  # it rotates
            headers = {"Authorization": f"Bearer {token}"}
            with urllib3.PoolManager(ca_certs=self._certificate, retries=False, timeout=TIMEOUT_S) as pool:
                answer = pool.request("POST", self._url, headers=headers, json={"trainerStatus": status})
            if answer.status >= 300:
                raise OSError(f"HTTP {answer.status}")
            self._failures = 0
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            self._failures += 1
            if self._failures == MOST_FAILURES:
                emit("warning", message=f"Kubeflow Trainer is not told any more how far training is, since it does not answer: {error}")
