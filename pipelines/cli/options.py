"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from edm2core.config.given import OPTION, parse_given
from edm2core.config.validate import unknown
from edm2core.errors import InputError
from edm2core.paths import local_path
from edm2core.store import DEFAULT_STORE, STORE_VARIABLE
from pipelines.cli import completion


class UserPath(click.Path):
    """A path, which may also be written as ~/… or file:///…"""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(local_path(str(value)), param, ctx)


class ExperimentPath(UserPath):
    """An experiment's file, or the name of a bundled one where no file of that name exists."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)
        if path.exists() or path.is_symlink() or path.name != str(value) or path.suffix:
            return path
        bundled = {file.stem: file for file in sorted(EXPERIMENTS.glob("*.yaml"))}
        if path.name not in bundled:
            raise InputError(
                f"There is no file {path.name} here. {unknown('bundled experiment', path.name, path.name, list(bundled))}",
                where=str(EXPERIMENTS),
                do_next="Name one of the bundled experiments in that folder, or give the path of a file.",
            )
        return bundled[path.name]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completion.beginning(sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")), incomplete, "file")


EXPERIMENTS = (Path(__file__).parents[1] / "experiments").resolve()  # in the repository a link, in a wheel a folder of the package
PATH, FOLDER = UserPath(path_type=Path), UserPath(path_type=Path, file_okay=False)
experiment_argument = click.argument("experiment", type=ExperimentPath(path_type=Path))
store_argument = click.argument("store", default=DEFAULT_STORE, envvar=STORE_VARIABLE, metavar=f"[STORE={DEFAULT_STORE}]")
store_option = click.option(
    "--store",
    metavar="STORE",
    default=DEFAULT_STORE,
    envvar=STORE_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="Where results live: a folder, minio://bucket/prefix or s3://bucket/prefix.",
)
snapshot_argument = click.argument("snapshot", type=UserPath(), shell_complete=completion.snapshots)
force_option = click.option("--force", is_flag=True, help="Overwrite the file.")
set_option = click.option(
    OPTION,
    "given",
    multiple=True,
    type=parse_given,
    metavar="NAME=VALUE",
    help="A setting in place of the file's, such as training.lr=1e-3 or epochs=[1, 2]. It may be given several times. The run records it.",
)
_PROFILE = "A cluster profile: the name of a bundled one (gpu, lab), or a path that ends in .yaml."
cluster_option = click.option("--cluster", metavar="PROFILE", help=_PROFILE)
needed_cluster_option = click.option("--cluster", metavar="PROFILE", required=True, help=_PROFILE)
accept_code_option = click.option(
    "--accept-code",
    is_flag=True,
    help="Let trainings go on from states that other science made. The curve, the snapshots and the report say so.",
)
