"""Cross-architecture bars: each method on each network that was trained on its sets, with intervals."""

from typing import Any

from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.report import names, wording
from dambench.report.figures import drawing, values
from dambench.report.figures.drawing import Drawn, Look
from dambench.report.figures.values import Value
from dambench.report.wording import SOURCE
from dambench.store.leaderboard import Leaderboard, Table

AXES = ("method",), ("network",)
"""Rows and columns of the leaderboard that is drawn."""
GROUP = 0.82
"""Width of the bars of one network, of the distance between two."""
LONG_NAMES = 9
"""Letters of a network's name from which names are written slanted."""


def draw(board: Leaderboard, look: Look) -> Drawn:
    """
    Args:
        board: with the rows and columns of AXES.

    Raises:
        BadInput: no set was evaluated on two networks, or there is too much.
    """
    tables = [table for table in board.tables if len(table.columns) > 1]
    if not tables:
        raise BadInput(
            "No set has scores on two networks: `dambench evaluate ID --evaluate-on resnet18,vgg11` measures others."
        )
    methods = [m for m in values.methods(board) if any(row[0] == m for table in tables for row in table.rows)]
    drawing.check_number(len(methods), "methods")
    titles, shared = values.titles(tables)
    handles: dict[str, Any] = {}
    drawn: dict[str, list[Value]] = {}
    figure, panels = drawing.panels(len(tables), _wide(look, tables))
    for axes, table, title in zip(panels, tables, titles, strict=True):
        for method, (handle, bars) in _panel(axes, table, methods, look).items():
            handles.setdefault(method, handle)
            drawn.setdefault(method, []).extend(bars)
        axes.set_title(drawing.printable(title, look))
        axes.set_ylabel(drawing.printable(wording.metric_label(board.metric), look))
    order = [method for method in methods if method in handles]
    labels = [drawing.printable(values.marked(method, drawn[method]), look) for method in order]
    drawing.legend(figure, [handles[method] for method in order], labels, look)
    about = f"{wording.metric_label(board.metric)} by evaluation network{f', {shared}' if shared else ''}"
    every = [value for some in drawn.values() for value in some]
    sentences = [f"{about}{wording.selection(board)}.", *values.about_intervals(every)]
    if any(value.source for value in every):
        sentences.append(f"{SOURCE}: the network that the set was matched on.")
    return Drawn(figure, about, " ".join(sentences))


def _wide(look: Look, tables: list[Table]) -> Look:
    """Bars of many networks need the whole width."""
    if look.panels is not None or max(len(table.columns) * len(table.rows) for table in tables) < 16:
        return look
    return drawing.Look(look.width, look.height, 1, look.font, look.points)


def _panel(axes: Any, table: Table, methods: list[str], look: Look) -> dict[str, tuple[Any, list[Value]]]:
    there = [method for method in methods if any(row[0] == method for row in table.rows)]
    width = GROUP / len(there)
    shown: dict[str, tuple[Any, list[Value]]] = {}
    for place, method in enumerate(there):
        sign = drawing.sign(methods.index(method))
        for group, column in enumerate(table.columns):
            cell = table.cells.get(((method,), column))
            value = None if cell is None else values.value_of(cell)
            if value is None:
                continue
            x = group + (place - (len(there) - 1) / 2) * width
            filled = value.low is not None
            bar = axes.bar(
                [x],
                [value.mean],
                width * 0.92,
                facecolor=sign.colour if filled else "white",
                edgecolor="white" if filled else sign.colour,
                hatch=sign.hatch,
                linewidth=0.5,
            )
            top = value.mean
            if value.low is not None and value.high is not None:
                around = [[value.mean - value.low], [value.high - value.mean]]
                axes.errorbar([x], [value.mean], yerr=around, color="black", capsize=1.8, elinewidth=0.8, fmt="none")
                top = value.high
            if value.source:
                axes.annotate(SOURCE, (x, top), (0, 3), textcoords="offset points", ha="center", annotation_clip=False)
            shown.setdefault(method, (bar, []))[1].append(value)
    labels = [drawing.printable(display(names.of("network", str(column[0]))), look) for column in table.columns]
    slanted = max(map(len, labels)) >= LONG_NAMES
    axes.set_xticks(range(len(labels)), labels, rotation=25 if slanted else 0, ha="right" if slanted else "center")
    axes.tick_params(axis="x", length=0)
    if table.metric.unit == "fraction":
        axes.set_ylim(0, min(105.0, axes.get_ylim()[1]))
    return shown
