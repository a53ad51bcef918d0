"""Accuracy, or another metric, over images per class, with intervals: a panel per dataset, network and protocol."""

from typing import Any

from dambench.core.errors import BadInput
from dambench.report import wording
from dambench.report.figures import drawing, values
from dambench.report.figures.drawing import Drawn, Look
from dambench.report.figures.values import Value
from dambench.store.leaderboard import Leaderboard, Table

AXES = ("method",), ("ipc",)
"""Rows and columns of the leaderboard that is drawn."""
APART = 1.055
"""Ratio of the places of two methods at one IPC, so that no bar hides another."""


def draw(board: Leaderboard, look: Look) -> Drawn:
    """
    Args:
        board: with the rows and columns of AXES.

    Raises:
        BadInput: there is nothing to draw, or too much.
    """
    tables = [table for table in board.tables if any(column[0] is not None for column in table.columns)]
    if not tables:
        raise BadInput("No finished run has a synthetic set with a score yet: `dambench runs` lists all.")
    methods = values.methods(board)
    drawing.check_number(len(methods), "methods")
    titles, shared = values.titles(tables)
    handles: dict[str, Any] = {}
    drawn: dict[str, list[Value]] = {}
    missing: list[str] = []
    figure, panels = drawing.panels(len(tables), look)
    for axes, table, title in zip(panels, tables, titles, strict=True):
        shown = _panel(axes, table, methods, look)
        for method, (handle, points) in shown.items():
            handles.setdefault(method, handle)
            drawn.setdefault(method, []).extend(points)
        missing += [method for method in methods if any(row[0] == method for row in table.rows) and method not in shown]
        axes.set_title(drawing.printable(title, look))
        axes.set_xlabel(drawing.printable(_x_label(), look))
    for axes in panels[:: look.panels or len(panels)]:
        axes.set_ylabel(drawing.printable(wording.metric_label(board.metric), look))
    order = [method for method in methods if method in handles]
    labels = [drawing.printable(values.marked(method, drawn[method]), look) for method in order]
    drawing.legend(figure, [handles[method] for method in order], labels, look)
    about = f"{wording.metric_label(board.metric)} over images per class{f', {shared}' if shared else ''}"
    sentences = [
        f"{about}{wording.selection(board)}.",
        *values.about_intervals([v for some in drawn.values() for v in some]),
    ]
    if any(values.is_whole(_cells(table, method)) for table in tables for method in order):
        sentences.append("Lines across: the whole training set.")
    notes = tuple(f"{method}: not finite, and not drawn" for method in dict.fromkeys(missing))
    return Drawn(figure, about, " ".join(sentences), notes)


def _x_label() -> str:
    from dambench.report import names

    given = names.of_axis("ipc")
    return "images per class" if given == "ipc" else given


def _cells(table: Table, method: str) -> list[Any]:
    return [table.cells[(method,), column] for column in table.columns if ((method,), column) in table.cells]


def _panel(axes: Any, table: Table, methods: list[str], look: Look) -> dict[str, tuple[Any, list[Value]]]:
    """Draw one table. Returns of each method a handle for the legend, and what was drawn."""
    ipcs = sorted(int(column[0]) for column in table.columns if column[0] is not None)
    there = [method for method in methods if _cells(table, method)]
    shown: dict[str, tuple[Any, list[Value]]] = {}
    for number, method in enumerate(methods):
        if method not in there:
            continue
        sign = drawing.sign(number)
        cells = _cells(table, method)
        if values.is_whole(cells):
            if (whole := values.value_of(cells[0])) is not None:
                handle = axes.axhline(whole.mean, color=sign.colour, linestyle=(0, (6, 2)), linewidth=0.8)
                if whole.low is not None and whole.high is not None:
                    axes.axhspan(whole.low, whole.high, color=sign.colour, alpha=0.12, linewidth=0)
                shown[method] = handle, [whole]
            continue
        moved = APART ** (there.index(method) - (len(there) - 1) / 2)
        points = [
            (ipc * moved, value)
            for ipc in ipcs
            if ((method,), (ipc,)) in table.cells
            and (value := values.value_of(table.cells[(method,), (ipc,)])) is not None
        ]
        if points:
            shown[method] = _line(axes, points, sign), [value for _, value in points]
    axes.set_xscale("log")
    _ticks(axes, ipcs)
    if table.metric.unit == "fraction":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, 101.0))
    return shown


def _line(axes: Any, points: list[tuple[float, Value]], sign: drawing.Sign) -> Any:
    (handle,) = axes.plot(
        [x for x, _ in points],
        [value.mean for _, value in points],
        color=sign.colour,
        linestyle=sign.dashes,
        marker=sign.marker,
    )
    for x, value in points:
        if value.low is None or value.high is None:
            axes.plot([x], [value.mean], color=sign.colour, marker=sign.marker, markerfacecolor="white", linestyle="")
            continue
        around = [[value.mean - value.low], [value.high - value.mean]]
        axes.errorbar([x], [value.mean], yerr=around, color=sign.colour, capsize=1.8, elinewidth=0.8, fmt="none")
    return handle


def _ticks(axes: Any, ipcs: list[int]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.xaxis.set_major_locator(FixedLocator(ipcs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ipcs, [str(ipc) for ipc in ipcs])
    if ipcs:
        axes.set_xlim(ipcs[0] / 1.35, ipcs[-1] * 1.35)
