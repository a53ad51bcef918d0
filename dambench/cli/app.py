"""The program: its commands, and the sentence and exit code of what goes wrong.

Data goes to stdout, narration to stderr. Exit codes: 0 done, 1 the run failed, 2 bad input; stopped: 129 by HUP, 130 by
INT, 143 by TERM, USR1, USR2 or on request.
"""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer import Option

from dambench import __version__
from dambench.cli import (
    catalog,
    check,
    compare,
    config,
    db,
    doctor,
    estimates,
    experts,
    export,
    figure,
    published,
    queue,
    report,
    run,
    runs,
    serve,
    sets,
    shot,
    suite,
    sweep,
    tune,
    watch,
)
from dambench.cli.arguments import Commands, Group
from dambench.cli.complaints import complaint_about
from dambench.cli.console import open_console, refuse_console_options
from dambench.cli.options import Db
from dambench.cli.output import complain
from dambench.cli.signals import EXIT_CODES, Interrupted
from dambench.cli.store import last_opened
from dambench.core import sanitize
from dambench.core.errors import BadInput
from dambench.store import runs as stored

app = Commands(
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
app.command()(run.resume)
app.command()(sweep.sweep)
app.command()(suite.suite)
app.command()(run.evaluate)
app.command()(tune.tune)
app.command(hidden=True)(check.checks)
app.command(hidden=True)(estimates.estimates)
app.command()(watch.watch)
app.command()(watch.logs)
app.command()(watch.stop)
app.command()(watch.wait)
app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})(runs.tag)
app.command()(runs.note)
app.command()(shot.shot)
app.command()(serve.serve)
app.command()(report.report)
app.command()(compare.compare)
app.command()(runs.runs)
app.command()(runs.show)
app.command("import")(sets.import_)
app.command()(export.export)
app.command()(runs.delete)
app.command()(runs.restore)
app.command()(catalog.networks)
app.command()(catalog.protocols)
app.command()(doctor.doctor)
app.command("published")(published.published_)
app.add_typer(catalog.methods_app, name="methods")
app.add_typer(catalog.data_app, name="data")
app.add_typer(db.app, name="db")
app.add_typer(queue.app, name="queue")
app.add_typer(experts.app, name="experts")
app.add_typer(figure.app, name="figure")
app.add_typer(config.app, name="config")


def main() -> NoReturn:
    """Run the command that the program was started with."""
    _stand_in()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no × shows a question mark
    sys.exit(run_cli(sys.argv[1:]))


def _stand_in() -> None:
    """See that 0, 1 and 2 are open, whatever whoever started us has closed: no file of ours may take their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or io.StringIO()
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()


@cache
def _command() -> Callable[..., Any]:
    """All commands. To put them together takes 10 ms."""
    return typer.main.get_command(app)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command; what is wrong with the request becomes one sentence on stderr and exit code 2."""
    try:
        for argument in arguments:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise BadInput(f"The argument {sanitize.display(argument)!r} is not valid UTF-8.")
        code = _command()(list(arguments), prog_name="dambench", standalone_mode=False, obj=list(arguments))
        sys.stdout.flush()
        return int(code or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except Interrupted as interrupt:
        complain(f"stopped by {interrupt}, before a run began.")
        return EXIT_CODES[str(interrupt)]
    except Exception as error:
        complaint = complaint_about(error)
        if complaint is None:
            raise
        if isinstance(error, OSError) and not error.filename:
            # It was stdout. What is still in its buffer would fail once more when Python ends.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        text = f"{complaint.text} {complaint.hint}".rstrip()
        return complain(text, complaint.code) if text else complaint.code
    finally:
        last_opened.set(None)


@app.callback(invoke_without_command=True)
def console(
    context: typer.Context,
    readonly: Annotated[
        bool, Option("--readonly", help="The console only looks: nothing is started or stopped.")
    ] = False,
    ascii_: Annotated[bool, Option("--ascii", help="The console draws with ASCII only.")] = False,
    no_color: Annotated[bool, Option("--no-color", help="The console sends no colours [also: NO_COLOR].")] = False,
    db: Db = None,
    version: Annotated[bool, Option("--version", help="Say the version and stop.")] = False,
) -> None:
    """Benchmark dataset distillation: run the methods, store every run, compare them. Alone: the console."""
    if version:
        print(f"dambench {__version__}")
        raise typer.Exit
    if no_color:
        os.environ["NO_COLOR"] = "1"  # for whatever draws
    command = context.invoked_subcommand
    if command is None:
        open_console(db or stored.default_path(), "", context)
        return
    assert isinstance(context.command, Group)
    if db is not None and not _takes(context.command.commands[command], "db"):
        raise BadInput(f"--db {str(db)!r}: `dambench {command}` uses no database.")
    if command not in ("run", "shot"):
        refuse_console_options(context, f"dambench {command}")


def _takes(command: Any, option: str) -> bool:
    """Whether a command, or one of a group, has an option of that name."""
    members = getattr(command, "commands", {}).values()
    return any(_takes(member, option) for member in members) or option in [param.name for param in command.params]
