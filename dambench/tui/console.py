"""Console: what a screen may ask of the program that it is part of."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.text import Text
from textual.screen import Screen

from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui.feed import File
from dambench.tui.settings import Settings
from dambench.tui.terminal.pixels import KittyImages, PixelTerminal

Undo = Callable[[], str]
"""Brings back what was deleted; returns a sentence that says so, or raises BadInput."""


@dataclass(frozen=True)
class ConsoleOptions:
    """Options of the console: how it may draw, and what it may do."""

    readonly: bool = False
    """No run is started, stopped or changed from here."""
    served: bool = False
    """It is drawn for somebody at a browser, who is shown the database and nothing else of this machine."""
    ascii: bool = False
    """Nothing but ASCII: bars of #, charts of dots."""
    colour: bool = True
    theme: str = ""
    """Its name; empty: the one that was chosen last."""
    place: str = "last"
    """The first; last: where the console was left."""
    cells: tuple[str, ...] = ()
    """What Compare shows; empty: as it was left."""
    columns: tuple[str, ...] = ()
    """Columns of Runs; none: as they were left."""
    refresh: float = 1.0
    """How many times as long as usual nothing is drawn anew."""
    notify: tuple[str, ...] = ("toast", "bell")
    """How the end of a run is told: of preferences.Notice."""
    pixels: PixelTerminal | None = None
    """How the terminal shows images as they are; None: in half blocks."""
    mouse: bool = False
    """Clicks and the wheel do something."""
    keys: tuple[tuple[str, str], ...] = ()
    """Names of what keys do (tui.keys), and the keys instead of the usual ones."""


class Console(Protocol):
    """The program as its screens see it."""

    path: Path
    """The database, which may not be there yet."""
    file: File | None
    """The file under that name, as it is shown; None: there is no database."""
    options: ConsoleOptions
    settings: Settings
    pixels: PixelTerminal | None
    """How images are drawn as they are; None: in half blocks."""
    kitty: KittyImages | None
    """Those that the terminal keeps."""

    def ask(self) -> None:
        """Ask the database at once for whatever is in front."""

    def place_at(self, column: int) -> str | None:
        """Look up the place whose name is at that column of the first line."""

    def check_file(self) -> None:
        """See that the file that is shown is the one under the database's name.

        Raises:
            BadInput: it is not.
        """

    def database(self, *, write: bool = False) -> AbstractContextManager[Store]:
        """Open the database that is shown, and no other, to read or to change.

        Raises:
            BadInput: it is not there, or another one is in its place.
        """

    def go(self, name: str) -> None:
        """Go to a main screen."""

    def open_run(self, run_id: str) -> None:
        """Show a run: as it goes on, or as a whole where it has ended."""

    def watch_run(self, run_id: str) -> None:
        """Show a run in Live."""

    def show_whole(self, run_id: str) -> None:
        """Show all of a run, whether it goes on or not."""

    def marked(self) -> list[str]:
        """The uids of the runs that are marked in Runs."""

    def compare_runs(self, run_ids: list[str]) -> None:
        """Compare these runs."""

    def new_run(self, row: RunRow | None = None) -> None:
        """Open the form, filled from a run where one is given."""

    def screens_line(self, name: str) -> Text:
        """The first line of every main screen, of which this one is in front."""

    def say(self, text: str, severity: Any = "information") -> None:
        """Show a note that goes away by itself."""

    def deleted(self, undo: Undo) -> None:
        """Something was deleted, and can be brought back so."""

    def offers(self, action: str, screen: Screen[Any]) -> bool:
        """Whether that would do something in this screen now: what would not is not offered."""

    def refuses(self) -> bool:
        """Refuse, with a note, where nothing may be changed from here."""
