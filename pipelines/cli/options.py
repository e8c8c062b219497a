"""Arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edm2core.paths import local_path


class UserPath(click.Path):
    """A path, also as ~/… or file:///…"""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(local_path(str(value)), param, ctx)


PATH, FOLDER = UserPath(path_type=Path), UserPath(path_type=Path, file_okay=False)
experiment_argument = click.argument("experiment", type=PATH)
STORE = "./edm2-store"
store_argument = click.argument("store", default=STORE, metavar=f"[STORE={STORE}]")
store_option = click.option(
    "--store",
    metavar="STORE",
    default=STORE,
    show_default=True,
    help="Where results live: a folder, minio://bucket/prefix or s3://bucket/prefix.",
)
_PROFILE = "A cluster profile: a name in k8s/profiles, or a path that ends in .yaml."
cluster_option = click.option("--cluster", metavar="PROFILE", help=_PROFILE)
needed_cluster_option = click.option("--cluster", metavar="PROFILE", required=True, help=_PROFILE)
accept_code_option = click.option(
    "--accept-code", is_flag=True, help="Let trainings go on from states that other science made; curve, snapshots and report say so."
)
