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
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer import Option

from dambench import __version__
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

LOOKING = {"runs": "runs", "show": "runs", "report": "report", "compare": "compare"}
"""Commands that only look, with the module that each is in: they start without what the others need."""

ALONE = ("--readonly", "--ascii", "--no-color", "--version")
"""Options that open the console, where no command comes after them."""


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


def _needed(arguments: Sequence[str]) -> str:
    """The command that is meant, if it only looks; empty: the console is; `all`: any other, or help, or a mistake."""
    rest = list(arguments)
    while rest and (rest[0] in (*ALONE, "--db") or rest[0].startswith("--db=")):
        rest = rest[2 if rest[0] == "--db" else 1 :]
    word = rest[0] if rest else ""
    return word if word in ("", *LOOKING) and "_DAMBENCH_COMPLETE" not in os.environ else "all"


@cache
def commands(needed: str = "all") -> Callable[..., Any]:
    """The parser of what is needed: of one command that only looks, of the console alone (empty), or of all."""
    app = Commands(
        add_completion=True,
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(console)
    if needed in LOOKING:
        app.command()(getattr(import_module(f"dambench.cli.{LOOKING[needed]}"), needed))
    elif needed:
        from dambench.cli.commands import add_all

        add_all(app)
    return typer.main.get_command(app)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command; what is wrong with the request becomes one sentence on stderr and exit code 2."""
    try:
        for argument in arguments:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise BadInput(f"The argument {sanitize.display(argument)!r} is not valid UTF-8.")
        code = commands(_needed(arguments))(
            list(arguments), prog_name="dambench", standalone_mode=False, obj=list(arguments)
        )
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
