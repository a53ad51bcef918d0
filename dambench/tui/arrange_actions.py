"""Arranging tables: the keys and questions about rows and columns that Compare and Report have in common."""

from collections.abc import Callable, Sequence

from textual.binding import Binding, BindingType

from dambench.report.arrangement import Arrangement
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.arranging import rearranged
from dambench.tui.models.comparison import CHOICES, axes_label, choose
from dambench.tui.widgets.pick import Pick
from dambench.tui.widgets.sure import Several

CHOOSE_KEYS: list[BindingType] = [
    Binding("R", "choose('rows')", "Rows", show=False, tooltip="Which rows are shown, and in which order"),
    Binding("C", "choose('columns')", "Columns", show=False, tooltip="Which columns are shown, in which order"),
]


def ask_for_axes(
    screen: MainScreen, rows: tuple[str, ...], columns: tuple[str, ...], which: str, change: Callable[..., None]
) -> None:
    """Ask what rows, or columns, stand for.

    Args:
        rows: what they stand for now; `columns` likewise.
        which: `rows` or `columns`.
        change: takes both, and the arrangement's `hide`, `first` and `order`.
    """

    def chosen(choice: str | None) -> None:
        if choice is not None:
            new_rows, new_columns = choose(rows, columns, which, tuple(choice.split(",")))
            # What was hidden, and what they were ordered by, were names of other rows and columns.
            change(rows=new_rows, columns=new_columns, hide=(), first=(), order="")

    options = [(axes_label(choice), ",".join(choice)) for choice in CHOICES]
    now = rows if which == "rows" else columns
    screen.app.push_screen(Pick(f"What {which} stand for", options, ",".join(now)), chosen)


def ask_for_names(
    screen: MainScreen, which: str, names: Sequence[str], arrangement: Arrangement, change: Callable[..., None]
) -> None:
    """Ask which rows, or columns, are shown, and in which order.

    Args:
        which: `rows` or `columns`.
        names: of all of them, hidden ones among them, in their order.
        change: takes the arrangement's `hide` and `first`.
    """
    if not names:
        screen.console_app.say(f"There are no {which} to choose from.")
        return

    def chosen(shown: list[str] | None) -> None:
        if shown is not None:
            new = rearranged(arrangement, names, shown)
            change(hide=new.hide, first=new.first)

    hidden = {name.casefold() for name in arrangement.hide}
    options = [(name, name, name.casefold() not in hidden) for name in names]
    screen.app.push_screen(Several(which.capitalize(), options, movable=True), chosen)
