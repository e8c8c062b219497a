"""edm2 tensorboard"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from edm2core.errors import InputError
from edm2core.store import open_store
from pipelines.boards import bring

POLL_S = 15.0


@click.command(short_help="Show the training curves of a store in TensorBoard.")
@click.argument("store")
@click.option("--host", default="localhost", show_default=True, help="Address to listen at.")
@click.option("--port", default=6006, show_default=True, help="Port to listen at.")
def command(store: str, host: str, port: int) -> None:
    """Start TensorBoard on the event files of all trainings in STORE, each under its recipe, seed and key, until Ctrl-C.

    What trainings that go on write meanwhile is shown too.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("TensorBoard is not installed here.", do_next="pip install 'edm2[compute]'")
    where = open_store(store)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # TensorBoard ends with this command however that ends
    with tempfile.TemporaryDirectory(prefix="edm2-tensorboard-") as folder:
        if not bring(where, Path(folder)):
            raise InputError("No training has written event files there.", where=where.uri, do_next="`edm2 runs` lists what a store holds.")
        server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--host", host, "--port", str(port), "--reload_interval", "10"]
        )
        try:
            while server.poll() is None:
                try:
                    server.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    bring(where, Path(folder))
        finally:
            server.terminate()
            server.wait()
