"""edm2 serve"""

import signal
import sys
from contextlib import suppress

import click

from edm2core.store import find_store
from pipelines.cli.options import store_argument
from pipelines.look.server import is_for_this_machine_alone, listen

PORT = 8765


@click.command()
@store_argument
@click.option("--host", default="localhost", show_default=True, help="Address to listen at. Other ones let other machines read the store.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Port to listen at (default: {PORT}, or the next free).")
def command(store: str, host: str, port: int | None) -> None:
    """List the runs and results of STORE in the browser, live while a run goes on, until Ctrl-C. Nothing can be changed through it."""
    server = listen(find_store(store), host, PORT if port is None else port, exactly=port is not None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not is_for_this_machine_alone(host):
        click.echo(f"Whoever can reach {host} can read the whole store: this page has no passwords and no encryption.", err=True)
    with suppress(KeyboardInterrupt):
        click.echo(f"{server.store.uri} is at {server.url} (Ctrl-C ends it)")
        server.run()
