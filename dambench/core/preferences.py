"""Preferences: what a user of this machine likes the console to be, from one TOML file of theirs.

It is `config.toml` in XDG_CONFIG_HOME/dambench. Nothing in it changes a number: what a run does is in its request.
What is said on the command line, and then what the environment says, goes over it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dambench.core import config, files
from dambench.core.errors import BadInput

PixelWish = Literal["auto", "always", "never"]

Notice = Literal["toast", "bell", "osc9", "osc777"]


class ConsolePreferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the console is. What is left out is as it was when the console was last left."""

    theme: str = ""
    place: Literal["last", "runs", "live", "compare", "queue", "report"] = "last"
    columns: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    refresh: Annotated[float, Meta(ge=0.25, le=60)] = 1.0
    readonly: bool = False
    ascii: bool = False
    pixels: PixelWish = "auto"
    mouse: bool = False
    notify: tuple[Notice, ...] = ("toast", "bell")


class Preferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All preferences of a user."""

    on_finish: str = ""
    console: ConsolePreferences = ConsolePreferences()
    keys: dict[str, str] = {}


TEMPLATE = """\
# dambench: what you prefer. A line that begins with # does nothing; what it shows is an example.
# `dambench config check` says what is wrong here, `dambench config keys` lists all that may stand below [keys].

# A command at the end of every run and every sweep (docs/hooks.md). --hook and DAMBENCH_HOOK go over it.
# on_finish = "notify-send 'dambench: a run has ended'"

[console]
# theme = "textual-light"          # else the one that was chosen last
# place = "last"                   # the first: runs, live, compare, queue, report, or last, where you were
# columns = ["run", "method", "dataset", "ipc", "state", "accuracy"]
# cells = ["metric", "rank"]       # what Compare's cells show, of what `dambench report --show` takes
# refresh = 1.0                    # 2.0: numbers and charts are drawn half as often, for a slow line
# readonly = false                 # true: nothing is started, stopped or changed from the console
# ascii = false                    # true: nothing but ASCII is drawn
# pixels = "auto"                  # images as they are where the terminal can; "never": in half blocks
# mouse = false                    # true: clicks and the wheel, at the price of selecting text in the terminal
# notify = ["toast", "bell"]       # at the end of a run, also of `watch`; "osc9" or "osc777": by the terminal

[keys]
# "runs.filter" = "f"              # the other key for it then does nothing
# "everywhere.quit" = "q,f10"
"""
"""The file as it is first written."""


def path() -> Path:
    """The file, which may not be there."""
    return files.user_folder("config") / "config.toml"


def read() -> Preferences:
    """Read the file; all as it comes, if there is none.

    Raises:
        BadInput: it is no TOML, or holds what no preference is.
    """
    file = path()
    if not file.exists():
        return Preferences()
    return of(config.toml_in(file), f"{str(file)!r}")


def of(fields: dict[str, Any], whose: str) -> Preferences:
    """Make preferences of what a TOML file says.

    Raises:
        BadInput: a key is unknown, or a value is not what it may be.
    """
    groups: dict[str, Any] = {}
    for name, kind in (("console", ConsolePreferences), ("keys", dict[str, str])):
        given = fields.get(name, {})
        if not isinstance(given, dict):
            raise BadInput(f"In {whose}: {name} is a table: write [{name}], and below it a line for each.")
        groups[name] = config.read(kind, given, f"[{name}] of {whose}") if name == "console" else _keys(given, whose)
    rest = {name: value for name, value in fields.items() if name not in groups}
    return msgspec.structs.replace(config.read(Preferences, rest, whose), **groups)


def _keys(given: dict[str, Any], whose: str) -> dict[str, str]:
    """Keys by what they do, however TOML nests them: `runs.filter = "f"` is a table in a table."""
    keys: dict[str, str] = {}
    for name, value in given.items():
        for rest, key in value.items() if isinstance(value, dict) else [("", value)]:
            what = f"{name}.{rest}" if rest else name
            if not isinstance(key, str) or not key.strip():
                raise BadInput(f'In [keys] of {whose}: {what} needs a key in quotes, such as "f" or "ctrl+g,f6".')
            if what in keys:
                raise BadInput(f"In [keys] of {whose}: {what} is said twice.")
            keys[what] = key
    return keys
