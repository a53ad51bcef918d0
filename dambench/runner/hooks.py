"""Hooks: a command of the user's that is run at the end of a run or a sweep, to send a mail or begin something else.

It comes from `--hook`, DAMBENCH_HOOK or the user's preferences, never from a database: that may be a stranger's.
Whatever it does, the run is as it was.
"""

import json
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
MOMENT = 0.05
MOST_HEARD = 1 << 16
"""Bytes of what a hook has said that are kept."""


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
    told = json.dumps({"kind": what, "name": name, "state": state, "db": str(path.absolute())} | dict(details))
    try:
        code, said = _call(words, told.encode(), environment)
    except (OSError, ValueError) as error:
        say(f"the hook could not be run: {display(str(error))}; the {what} is not affected")
        return
    if code is None:
        say(f"the hook was not done after {SECONDS:.0f} s and was killed; the {what} is not affected")
    elif code:
        last = display(said.strip().rpartition("\n")[2])
        say(f"the hook ended with exit code {code}{f': {last}' if last else ''}; the {what} is not affected")


def _call(words: Sequence[str], told: bytes, environment: Mapping[str, str]) -> tuple[int | None, str]:
    """Call a hook. It is over when its own process has ended, whatever that leaves in the background.

    Args:
        told: what it may read.

    Returns:
        Its exit code, None: it was killed, with all that it had begun; and the end of what it said.
    """
    until = time.monotonic() + SECONDS
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl+C is for us
    )
    talk = _Talk(process, told)
    try:
        while process.poll() is None and time.monotonic() < until:
            talk.go_on()
        if process.returncode is None:
            return None, ""
        talk.go_on()
        return process.returncode, talk.heard.decode(errors="replace")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        talk.close()


class _Talk:
    """What is said to a process and heard of it, of which only the end is kept: it may say more than memory holds."""

    def __init__(self, process: "subprocess.Popen[bytes]", told: bytes):
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout, self._left = process.stdin, process.stdout, told
        self._waits = selectors.DefaultSelector()
        self.heard = b""
        for pipe, event in ((self._stdin, selectors.EVENT_WRITE), (self._stdout, selectors.EVENT_READ)):
            os.set_blocking(pipe.fileno(), False)
            self._waits.register(pipe, event)

    def go_on(self) -> None:
        """Say and hear what can be at once; wait a moment if there is nothing."""
        if not self._waits.get_map():
            time.sleep(MOMENT)
        for key, _ in self._waits.select(MOMENT) if self._waits.get_map() else []:
            if key.fileobj is self._stdin:
                self._say()
            elif part := os.read(key.fd, MOST_HEARD):
                self.heard = (self.heard + part)[-MOST_HEARD:]
            else:
                self._waits.unregister(self._stdout)

    def _say(self) -> None:
        try:
            self._left = self._left[os.write(self._stdin.fileno(), self._left) :]
        except BrokenPipeError:  # it does not want to know
            self._left = b""
        if not self._left:
            self._waits.unregister(self._stdin)
            self._stdin.close()

    def close(self) -> None:
        self._waits.close()
        self._stdin.close()
        self._stdout.close()
