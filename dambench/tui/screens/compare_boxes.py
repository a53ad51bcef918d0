"""Boxes over Compare: curves, the intervals of a column, the sets of a cell, and all runs in a tree."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen, Screen
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from dambench.core.sanitize import counted, display
from dambench.report import wording
from dambench.report.quantities import TableView
from dambench.report.sections import groups as sections
from dambench.store import grouping
from dambench.store.cells import Cell, Key
from dambench.store.grouping import RunGroup, Values
from dambench.store.leaderboard import Leaderboard
from dambench.tui.console import Console
from dambench.tui.models import intervals
from dambench.tui.models.comparison import scores_by_set
from dambench.tui.resilient import Resilient
from dambench.tui.terminal.ascii_filter import spelled
from dambench.tui.widgets.sure import Several

OUTDATED = "the runs are others by now: close this, and open it again"

Node = RunGroup | str
"""A group, or the id of a run."""


class Curves(Resilient, ModalScreen[None]):
    """The curves of marked runs, as large as the terminal.

    Args:
        drawn: draws them, in so many columns and lines.
        other: shows losses, or accuracy.
        logarithm: takes a logarithmic axis, or not.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,c,q", "dismiss", "Back"),
        Binding("m", "curve", "Losses or accuracy"),
        Binding("L", "logarithm", "Logarithm of losses"),
    ]

    def __init__(
        self, drawn: Callable[[int, int], Text], other: Callable[[], None], logarithm: Callable[[], None]
    ) -> None:
        super().__init__()
        self._drawn, self._other, self._logarithm = drawn, other, logarithm

    def compose(self) -> ComposeResult:
        yield Static(id="large")

    def on_resize(self, event: Resize) -> None:
        self.draw()

    def draw(self) -> None:
        """Draw what the place has found."""
        width, height = self.app.size
        self.query_one("#large", Static).update(self._drawn(width - 2, height - 1))

    def action_curve(self) -> None:
        self._other()

    def action_logarithm(self) -> None:
        self._logarithm()


class TableBox:
    """A box of what the tables were when it was opened."""

    def say_outdated(self) -> None:
        """Say that the tables are others by now."""
        for box in cast(Screen[Any], self).query("#wide"):
            box.border_subtitle = OUTDATED


class Intervals(TableBox, Resilient, ModalScreen[None]):
    """The means of a column, each with its interval and the means of its sets."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,i,q", "dismiss", "Back"),
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, view: TableView, column: Key, *, ascii_: bool) -> None:
        super().__init__()
        self._view, self._column, self._ascii = view, column, ascii_

    def compose(self) -> ComposeResult:
        with Vertical(id="wide") as box:
            title = " · ".join(filter(None, (wording.name(self._view.columns, self._column),)))
            box.border_title = Content(title or "All")
            with VerticalScroll():
                yield Static(id="bars")
            yield Static(Text(intervals.legend(ascii_=self._ascii)), id="legend")

    def on_resize(self, event: Resize) -> None:
        width = min(self.app.size.width - 6, 150)
        drawn = intervals.lines(
            self._view, self._column, width, ascii_=self._ascii, said=spelled if self._ascii else str
        )
        self.query_one("#bars", Static).update(Text("\n").join(drawn))

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


class TreeBox(TableBox, Resilient, ModalScreen[str | None]):
    """A tree whose leaves are runs; gives the run that is chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "Back"),
        Binding("j", "move('cursor_down')", "Down", show=False),
        Binding("k", "move('cursor_up')", "Up", show=False),
        Binding("l,right", "open(True)", "Open"),
        Binding("h,left", "open(False)", "Close"),
    ]

    TITLE_HINT: ClassVar[str] = "enter opens a run; l and h open and close"

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(id="wide") as box:
            box.border_title = Content(self.said(display(self._title, 200)))
            box.border_subtitle = self.TITLE_HINT
            tree: Tree[Node] = Tree("")
            tree.show_root, tree.guide_depth = False, 3
            yield tree

    def on_mount(self) -> None:
        self.fill(self.lines)
        self.lines.focus()
        self.lines.move_cursor_to_line(0)

    @property
    def lines(self) -> Tree[Node]:
        return self.query_one(Tree)

    def said(self, text: str) -> str:
        """The text with signs that the terminal has."""
        return spelled(text) if cast(Console, self.app).options.ascii else text

    def fill(self, tree: Tree[Node]) -> None:
        """Put the first lines in."""
        raise NotImplementedError

    def on_tree_node_selected(self, event: "Tree.NodeSelected[Node]") -> None:
        if isinstance(event.node.data, str):
            self.dismiss(event.node.data)

    def action_move(self, how: str) -> None:
        getattr(self.lines, f"action_{how}")()

    def action_open(self, opens: bool) -> None:
        node = self.lines.cursor_node
        if node is None:
            return
        if opens:
            node.expand()
        elif node.is_expanded and node.children:
            node.collapse()
        elif node.parent is not None and not node.parent.is_root:
            node.parent.collapse()
            self.lines.move_cursor(node.parent)


class CellTree(TreeBox):
    """The sets of a cell, with the networks that were trained on each, and their runs."""

    def __init__(self, title: str, cell: Cell) -> None:
        super().__init__(f"{title}   {wording.entry(cell).number}   {wording.spread(cell)}")
        self._cell = cell

    def fill(self, tree: Tree[Node]) -> None:
        by_set = scores_by_set(self._cell)
        for label, run, networks in by_set:
            node = tree.root.add(Text(self.said(label)), data=run, expand=len(by_set) <= 4)
            for text, own in networks:
                node.add_leaf(Text(self.said(text)), data=own)


class RunsTree(TreeBox):
    """All runs in groups, each with the mean of its sets."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("g", "keys", "Group by"), Binding("T", "dismiss(None)", "Back")]
    TITLE_HINT: ClassVar[str] = "g chooses the keys; enter opens a run; l and h open and close"

    def __init__(
        self, board: Leaderboard, known: Values, by: Sequence[str], keep: Callable[[tuple[str, ...]], None]
    ) -> None:
        super().__init__("")
        self._board, self._known, self._keep = board, known, keep
        there = grouping.keys(known)
        self._by = tuple(key for key in by if key in there) or grouping.USUAL

    def fill(self, tree: Tree[Node]) -> None:
        tree.clear()
        only = f", only {display(self._board.only, 60)}" if self._board.only else ""
        box = self.query_one("#wide")
        label = wording.metric_label(self._board.metric)
        box.border_title = Content(f"{label}: runs by {display(', '.join(self._by), 120)}{only}")
        for group in grouping.group(self._board, self._by, self._known):
            self._add(tree.root, group)
        tree.move_cursor_to_line(0)

    def _add(self, under: TreeNode[Node], group: RunGroup) -> None:
        entry, runs = sections.entry(group), counted(len(group.runs), "run")
        spread = f"   {sections.spread(group)}" if group.cell is not None else ""
        n = f" ({entry.n})" if entry.n else ""
        key, value = group.path[-1]
        text = f"{display(key, 40)} {display(value, 60)}   {entry.number}{n}   {runs}{spread}"
        under.add(Text(self.said(text)), data=group)

    def on_tree_node_expanded(self, event: "Tree.NodeExpanded[Node]") -> None:
        node = event.node
        if not isinstance(node.data, RunGroup) or node.children:
            return
        for child in node.data.children:
            self._add(node, child)
        if not node.data.children:
            for run in node.data.runs:
                node.add_leaf(Text(self.said(self._run(node.data, run))), data=run)

    def _run(self, group: RunGroup, run: str) -> str:
        own = [score for score in group.scores if score.run == run]
        values = " ".join(wording.figure(group.metric, value) for value in Cell(tuple(own), group.metric).values)
        return f"{display(run, 40)}  seed {own[0].seed}  {values}"

    def action_keys(self) -> None:
        """Choose the keys."""
        names = [*self._by, *(key for key in grouping.differing(self._known) if key not in self._by)]

        def chosen(keys: list[str] | None) -> None:
            if keys:
                self._by = tuple(keys)
                self._keep(self._by)
                self.fill(self.lines)

        options = [(name, name, name in self._by) for name in names]
        self.app.push_screen(Several("Group runs by", options, movable=True), chosen)
