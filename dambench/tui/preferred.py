"""What a user prefers, as the console takes it: each name in it is one that the console has."""

from collections.abc import Iterator

from textual.binding import Binding
from textual.theme import BUILTIN_THEMES

from dambench.core.errors import BadInput, unknown
from dambench.core.preferences import Preferences
from dambench.report.quantities import QUANTITIES
from dambench.tui import keys
from dambench.tui.app import DambenchApp
from dambench.tui.console import ConsoleOptions
from dambench.tui.keys import KeyRow
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.columns import COLUMNS
from dambench.tui.screens.new_run import NewRunScreen
from dambench.tui.widgets.grid import Grid
from dambench.tui.widgets.row_list import RowList


def options(preferences: Preferences, whose: str) -> ConsoleOptions:
    """Check preferences against what the console has, and make its options of them.

    Args:
        whose: what the sentence of an error calls the file.

    Raises:
        BadInput: a theme, a column, the name of a key or a key is none; one key would do two things.
    """
    console = preferences.console
    if console.theme and console.theme not in BUILTIN_THEMES:
        raise _in(whose, unknown("theme", console.theme, BUILTIN_THEMES))
    for name in console.columns:
        if name not in COLUMNS:
            raise _in(whose, unknown("column", name, COLUMNS))
    for name in console.cells:
        if name not in QUANTITIES:
            raise _in(whose, unknown("quantity", name, QUANTITIES))
    keys.check(preferences.keys, key_rows(), f"[keys] of {whose}")
    return ConsoleOptions(
        readonly=console.readonly,
        ascii=console.ascii,
        theme=console.theme,
        place=console.place,
        columns=console.columns,
        cells=console.cells,
        refresh=console.refresh,
        notify=console.notify,
        mouse=console.mouse,
        keys=tuple(preferences.keys.items()),
    )


def key_rows() -> list[KeyRow]:
    """Everything that a key does in the console, place by place."""
    return list(keys.rows(_bindings()))


def _bindings() -> Iterator[Binding]:
    for part in (
        DambenchApp,
        MainScreen,
        *DambenchApp.PLACES.values(),
        *DambenchApp.OPENED.values(),
        NewRunScreen,
        Grid,
        RowList,
    ):
        yield from Binding.make_bindings(vars(part)["BINDINGS"])


def _in(whose: str, error: BadInput) -> BadInput:
    return BadInput(f"In [console] of {whose}: {error}")
