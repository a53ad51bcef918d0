"""`dambench config`: what the user prefers, in one file of theirs."""

import json
import os
import shlex
import subprocess
import sys
from typing import Annotated

import typer
from typer import Option

from dambench.cli.arguments import Commands
from dambench.cli.options import Json
from dambench.cli.output import say, table
from dambench.core import files, preferences
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.runner import hooks

app = Commands(
    rich_markup_mode=None, help="What you prefer: theme, keys, columns, notifications, a command at the end."
)


@app.callback(invoke_without_command=True)
def config(context: typer.Context) -> int:
    """Open the file of preferences in $VISUAL or $EDITOR, and say what is wrong in it, if anything is."""
    if context.invoked_subcommand is not None:
        return 0
    file = preferences.path()
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadInput(f"An editor needs a terminal, and this is none. The file is {str(file)!r}.")
    if not file.exists():
        with files.writing("The file of preferences", file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(file, preferences.TEMPLATE.encode())
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        subprocess.run([*shlex.split(editor), str(file)], check=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise BadInput(
            f"The editor {display(editor, 80)!r} failed ({display(str(error), 200)}): set EDITOR to one that is here. "
            f"The file is {str(file)!r}."
        ) from None
    return check()


@app.command("path")
def path() -> None:
    """Print where the file is, whether or not it is there."""
    print(preferences.path())


@app.command("check")
def check() -> int:
    """See that the file can be used: exit code 2 and one sentence if not."""
    file = preferences.path()
    if not file.exists():
        say(f"There is no file {str(file)!r}: all is as it comes. `dambench config` writes one.")
        return 0
    from dambench.tui import preferred

    found = preferences.read()
    preferred.options(found, f"{str(file)!r}")
    hooks.check(found.on_finish, f"on_finish in {str(file)!r}:")
    say(f"{str(file)!r} is in order.")
    return 0


@app.command("keys")
def keys(
    as_json: Json = False,
    ours: Annotated[bool, Option("--default", help="As they come, whatever is in the file.")] = False,
) -> None:
    """List what keys do in the console, by the names that [keys] of the file takes."""
    from dambench.tui import preferred

    chosen = {} if ours else preferences.read().keys
    rows = [(row.name, chosen.get(row.name, row.keys), row.meaning) for row in preferred.key_rows()]
    if as_json:
        print(json.dumps([{"name": name, "keys": keys.split(","), "meaning": meaning} for name, keys, meaning in rows]))
    else:
        table(["name", "keys", "meaning"], [list(row) for row in rows])
