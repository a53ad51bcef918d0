"""Hooks: a command of the user's that is run at the end of a run or a sweep, to send a mail or begin something else.

It comes from `--hook`, DAMBENCH_HOOK or the user's preferences, never from a database: that may be a stranger's.
Whatever it does, the run is as it was.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from dambench.core import preferences
from dambench.core.errors import BadInput
from dambench.core.sanitize import display

VARIABLE = "DAMBENCH_HOOK"
"""In the environment: the command, as a shell would split it. Runs in the background inherit it. Empty: none, whatever
the user's preferences say."""
SECONDS = 60.0
"""After which a hook is killed."""


def use(command: str) -> None:
    """Set the hook of this process and its children; an empty one: as the environment or the preferences have it.

    Raises:
        BadInput: it is no command line, or names a program that is not there; the preferences cannot be read.
    """
    where = "--hook"
    if not command and VARIABLE in os.environ:
        where, command = VARIABLE, os.environ[VARIABLE]
    elif not command:
        where, command = f"on_finish in {str(preferences.path())!r}:", preferences.read().on_finish
    if command:
        check(command, where)
        os.environ[VARIABLE] = command


def check(command: str, where: str) -> None:
    """See that a hook can be run; an empty one is none.

    Args:
        where: it was said.

    Raises:
        BadInput: it is no command line, or names a program that is not there.
    """
    if not command:
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadInput(f"{where} {display(command, 80)!r} is no command line: {error}.") from None
    if not words or shutil.which(words[0]) is None:
        program = display(words[0] if words else "", 80)
        raise BadInput(f"{where} {display(command, 80)!r}: there is no program {program!r} that could be run.")


def is_set() -> bool:
    """Tell whether there is a hook."""
    return bool(os.environ.get(VARIABLE))


def ended(
    what: Literal["run", "sweep"],
    name: str,
    state: str,
    path: Path,
    details: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Tell the hook, if there is one, that a run or a sweep has ended, and wait for it.

    Args:
        name: the run's id, or the sweep's name.
        path: of the database.
        details: what it reads from stdin, as JSON.
        say: hears what went wrong with it; nothing is raised.
    """
    try:
        words = shlex.split(os.environ.get(VARIABLE, ""))
    except ValueError:
        words = []
    if not words:
        return
    facts = {"DAMBENCH_ENDED_KIND": what, "DAMBENCH_ENDED_NAME": name, "DAMBENCH_ENDED_STATE": state}
    # Its own runs have no hook, or one that begins a run would never end.
    environment = {key: value for key, value in os.environ.items() if key != "DAMBENCH_DETACHED"}
    environment |= {VARIABLE: ""} | facts | {"DAMBENCH_DB": str(path.absolute())}
    try:
        done = subprocess.run(
            words,
            input=json.dumps({"kind": what, "name": name, "state": state, "db": str(path.absolute())} | dict(details)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            env=environment,
            start_new_session=True,  # Ctrl+C is for us
        )
    except subprocess.TimeoutExpired:
        say(f"the hook was not done after {SECONDS:.0f} s and was killed; the {what} is not affected")
    except (OSError, ValueError) as error:
        say(f"the hook could not be run: {display(str(error))}; the {what} is not affected")
    else:
        if done.returncode:
            said = display(done.stdout.strip().rpartition("\n")[2])
            told = f": {said}" if said else ""
            say(f"the hook ended with exit code {done.returncode}{told}; the {what} is not affected")
