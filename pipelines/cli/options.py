"""Arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

experiment_argument = click.argument("experiment", type=click.Path(path_type=Path))
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
