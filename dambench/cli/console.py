"""How the console is opened."""

import os
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dambench.cli.output import say
from dambench.core import collection, files, preferences
from dambench.core.errors import BadInput
from dambench.runner import processes
from dambench.store import database

if TYPE_CHECKING:
    from dambench.tui.console import ConsoleOptions


def refuse_console_options(context: typer.Context, command: str) -> None:
    """Refuse options of the console before a command that opens none."""
    for name, flag in (("readonly", "--readonly"), ("ascii_", "--ascii")):
        if context.find_root().params.get(name):
            raise BadInput(f"{flag} is for the console, and `{command}` opens none: leave it out.")


SERVED = "DAMBENCH_SERVED"
"""Set where the console is drawn on a page of `dambench serve`: whoever looks is not known to be its user."""


def in_terminal() -> bool:
    """Whether the console can be drawn here."""
    if os.environ.get(SERVED):
        return True
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def console_options(context: typer.Context) -> "ConsoleOptions":
    """The options that the console was opened with. To be called before textual is imported."""
    colour = not os.environ.get("NO_COLOR")
    from dambench.tui import preferred

    given, served = context.find_root().params, bool(os.environ.get(SERVED))
    options = preferred.options(preferences.read(), f"{str(preferences.path())!r}")
    return replace(
        options,
        readonly=options.readonly or bool(given.get("readonly")) or served,
        mouse=options.mouse and not served,
        served=served,
        ascii=options.ascii or bool(given.get("ascii_")),
        colour=colour,
    )


def open_console(path: Path, run_id: str, context: typer.Context) -> None:
    """Open the console, with this run in front; empty: none."""
    if not in_terminal():
        raise BadInput(
            "The console needs a terminal, and this is none. `dambench run --headless` runs, `dambench runs` lists, "
            "`dambench report` compares."
        )
    # Read when textual is imported: few bytes per second, for lines that are slow.
    os.environ.setdefault("TEXTUAL_FPS", "30")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    # Exported by some shells, and wrong once the terminal has another size.
    for name in () if os.environ.get(SERVED) else ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    files.home()
    with collection.importing():
        options, preferred = console_options(context), preferences.read().console
        from dambench.tui.app import DambenchApp
        from dambench.tui.terminal import pixels

    if path.exists():
        database.identify(path)
    with tempfile.TemporaryDirectory() if options.served else nullcontext() as own:
        if own:
            os.environ["XDG_STATE_HOME"] = own  # a visitor's choices are not the user's
        if options.colour and not (options.ascii or options.served):
            options = replace(options, pixels=pixels.ask(preferred.pixels))
        # Unless asked for, no mouse: each of its moves costs kilobytes, and a terminal that comes back sends moves from
        # nowhere.
        DambenchApp(path, run_id, options).run(mouse=options.mouse)


def run_in_console(arguments: list[str], path: Path, context: typer.Context) -> int:
    """Run `dambench` with these arguments in a process of its own, and open the console on its run."""
    run_id, code = processes.start(arguments, say)
    if not run_id:
        return code
    open_console(path, run_id, context)
    return 0


def words_after_command(context: typer.Context) -> list[str]:
    """The words after a command, and what was said before it that is for it, too."""
    words: list[str] = list(context.obj)
    at = 0
    while words[at].startswith("-"):
        at += 2 if words[at] == "--db" else 1
    before = context.find_root().params.get("db")
    return words[at + 1 :] + (["--db", str(before)] if before is not None else [])
