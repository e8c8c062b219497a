"""The `edm2` command: finds the verb, renders errors, sets the exit code."""

import errno
import importlib
import locale
import os
import signal
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper

import click
from click.shell_completion import CompletionItem
from pydantic import ValidationError
from rich.console import Console

from edm2core.addresses import redacted
from edm2core.config.validate import other_version, unknown
from edm2core.errors import EdmError, InputError
from pipelines.run.terminal import discard_output

GROUPS = {
    "An experiment": {
        "new": "Write an experiment for your own images.",
        "plan": "List an experiment's tasks, their cost, and what is in the store already.",
        "run": "Run an experiment and write its report.",
        "check": "Check code of your own that an experiment names.",
        "recipes": "List the recipes, show one in full, or compare two.",
    },
    "Its results": {
        "report": "Write the report of a run again, or compare runs.",
        "serve": "Show a store in the browser.",
        "tensorboard": "Show the training curves of a store in TensorBoard.",
        "reproduce": "Print the command that computes a result again.",
        "sample": "Draw images from a snapshot.",
        "export": "Write a snapshot into a folder, with a model card.",
        "ema": "Mix averages of any width from those that training stored.",
    },
    "Others' work": {
        "import": "Bring another implementation's checkpoint into a store.",
        "stats": "Bring others' reference statistics into a store.",
        "calibrate": "Compare distances with what others have measured.",
    },
    "The store": {
        "runs": "List the runs in a store, or forget one.",
        "status": "Say how far a run is.",
        "logs": "Print what a run's tasks printed.",
        "verify": "Check the digests of everything that runs need.",
        "gc": "List what no run needs, and remove it.",
    },
    "On a cluster": {
        "doctor": "Look whether a machine, a store and a cluster are ready.",
        "render": "Write ready training jobs for kubectl.",
        "compile": "Write the Kubeflow Pipelines package of an experiment.",
        "submit": "Run an experiment on Kubeflow Pipelines.",
        "scale": "Give a run's trainings another number of pods.",
        "cancel": "Stop a run in a cluster; what it has is kept.",
    },
}
VERBS = {verb: about for verbs in GROUPS.values() for verb, about in verbs.items()}
EXAMPLES = {
    "edm2 plan experiments/demo.yaml": "what would run",
    "edm2 run experiments/demo.yaml": "run it; again, after Ctrl-C: go on",
    "edm2 serve edm2-store": "look at it in the browser",
}
OUTPUT = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EBADF)  # how a write to standard output may fail


class _Verbs(click.Group):
    """The verbs. The file of a verb is imported only when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"pipelines.cli.{cmd_name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, without importing their files."""
        verbs = [CompletionItem(verb, help=about) for verb, about in VERBS.items() if verb.startswith(incomplete)]
        return verbs if not incomplete.startswith("-") else super().shell_complete(ctx, incomplete)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not ctx.resilient_parsing and args[0] not in VERBS and not args[0].startswith("-"):
            raise InputError(unknown("command", args[0], args[0], list(VERBS)), do_next="`edm2 --help` lists the commands.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, VERBS))  # so that the columns of all groups align
        for group, verbs in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{verb:{widest}}", about) for verb, about in verbs.items()])
        with formatter.section("Examples"):
            formatter.write_dl(list(EXAMPLES.items()), col_max=36)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edm2")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """EDM2 diffusion-training experiments: on one machine, on a cluster, on Kubeflow Pipelines."""


def main() -> None:
    """Run the command and exit: 0 done, 1 a task failed, 2 bad input, 130 interrupted."""
    _restart_in_utf8()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ✓ and σ gets ?, not an error
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _check_working_folder(arguments)
        code = cli.main(arguments, prog_name="edm2", standalone_mode=False)
        sys.stdout.flush()  # if the output cannot be written, an error says so
        sys.exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        discard_output(1)
        sys.exit(1)
    except Exception as error:
        explained = error if isinstance(error, EdmError) else _explained(error)
        _show(explained, debug)
        sys.exit(explained.exit_code)


def _restart_in_utf8() -> None:
    """Restart the process if the locale's encoding is not UTF-8, or if warnings were made errors."""
    warned = os.environ.pop("PYTHONWARNINGS", None)
    utf8 = sys.flags.utf8_mode or locale.getpreferredencoding(False).lower().replace("-", "") == "utf8"
    if warned or (not utf8 and os.environ.get("PYTHONUTF8") != "1"):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _check_working_folder(arguments: list[str]) -> None:
    """Raise InputError if the working directory was deleted: relative paths, such as the default store's, then lead nowhere."""
    if {"--help", "-h", "--version"} & {*arguments}:
        return
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError(
            "The folder that this command runs in was deleted.", where=os.environ.get("PWD", ""), do_next="Change into another one (cd)."
        ) from None


def _explained(error: Exception) -> EdmError:
    """An EdmError for any other exception: wrong arguments, settings of another version, an unusable file, or else a bug."""
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        what = error.format_message()
        if isinstance(error, click.NoSuchOption) and context and error.option_name in {f"--{own.name}" for own in context.command.params}:
            name = error.option_name[2:].upper()
            what = f"{name} stands without {error.option_name}: {context.command_path} {name}."
        help_at = f"`{context.command_path} --help` says what it takes." if context else ""
        return InputError(what, do_next=help_at)
    if isinstance(error, ValidationError):
        return other_version(error)
    if isinstance(error, OSError) and error.errno in OUTPUT and error.filename is None:
        discard_output(1)  # else the end of this process would fail too
        return EdmError(
            f"What this command prints cannot be written: {error.strerror}.",
            where="standard output",
            do_next="Send it somewhere else: to a disk with room, or to an open terminal.",
        )
    if isinstance(error, OSError) and error.filename is not None:
        what = f"A file or folder cannot be used: {error.strerror}."
        return EdmError(what, where=str(error.filename), do_next="Check the path and its rights.")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return EdmError(
        f"This should not have happened: {type(error).__name__}: {error}",
        where=f"{frame.filename}, line {frame.lineno}",
        do_next="Run it with --debug for the traceback, and report it.",
    )


def _show(error: EdmError, debug: bool) -> None:
    with suppress(OSError):  # standard error may be full or closed, and then nobody can be told
        if debug:
            sys.stderr.write(redacted(traceback.format_exc()))
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        console.print(f"edm2: {error.what}", style="bold red")
        for label, text in (("where", error.where), ("what to do", error.do_next)):
            if text:
                console.print(f"  {label}: {text}")


if __name__ == "__main__":
    main()
