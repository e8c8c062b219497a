"""edm2 tensorboard"""

import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from edm2core.errors import InputError, StoreError
from edm2core.store import find_store
from pipelines.cli.options import store_argument
from pipelines.look.tensorboard import Boards

POLL_S = 15.0  # the time between two looks for new values


@click.command()
@store_argument
@click.option("--host", default="localhost", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="Port to listen at.")
def command(store: str, host: str, port: int) -> None:
    """Start TensorBoard on the event files of all trainings in STORE, each under its recipe, seed and key, until Ctrl-C.

    Metrics and probes are shown by epoch, in each training's `evaluation`. New values of running trainings appear as they come.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("TensorBoard is not installed here.", do_next="pip install 'edm2[compute]'")
    where = find_store(store)
    _must_be_free(host, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that TensorBoard always ends with this command
    with tempfile.TemporaryDirectory(prefix="edm2-tensorboard-") as folder:
        boards = Boards(where, Path(folder))
        if not boards.bring():
            raise InputError("No training has written event files there.", where=where.uri, do_next="`edm2 runs` lists what a store holds.")
        server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--host", host, "--port", str(port), "--reload_interval", "10"]
        )
        try:
            while server.poll() is None:
                try:
                    server.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    with suppress(StoreError):  # the store may answer the next time
                        boards.bring()
        finally:
            boards.close()
            server.terminate()
            server.wait()


def _must_be_free(host: str, port: int) -> None:
    """Raise InputError if nothing can listen there. TensorBoard itself would print a page of text."""
    if port:
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            what = f"{host}:{port} cannot be listened at: {error.strerror or error}."
            raise InputError(what, where="--port", do_next="Give another one.") from None
