"""Run: one run, whole: what changed, its images, curves, scores, settings, log and files."""

import time
from dataclasses import replace
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display, display_lines
from dambench.store.metrics import ACCURACY
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui import run_actions
from dambench.tui.charting import ChartScreen
from dambench.tui.feed import Question
from dambench.tui.models.chart import Series
from dambench.tui.models.chart_view import AxisName, extent
from dambench.tui.models.curves import MOST_OVERLAYS, axis_is_known, curves
from dambench.tui.models.live_panes import header_lines, no_loss_reason, problem_banner
from dambench.tui.models.run_page import (
    RunPage,
    RunPageReader,
    config_lines,
    files_lines,
    scores_lines,
    summary_lines,
)
from dambench.tui.models.run_reader import RunGone, RunSnapshot, runs
from dambench.tui.terminal import refresh_rate
from dambench.tui.terminal.ascii_filter import spelled
from dambench.tui.widgets.chart import Chart
from dambench.tui.widgets.images import Images
from dambench.tui.widgets.lines import Lines

SECTIONS = ("Summary", "Curves", "Images", "Scores", "Config", "Log", "Files")

CHARTS = ("loss", "accuracy", "speed")

WIDE = 140
"""Columns of a terminal that has room for curves and images beside the summary."""


class RunScreen(ChartScreen):
    """One run, whole: what changed since the run before, curves, images, scores, settings, log, files."""

    NAME: ClassVar[str] = "Run"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "section(1)", "Next section", key_display="tab"),
        Binding("shift+tab", "section(-1)", "Section before", show=False),
        *ChartScreen.CHART_KEYS,
        Binding("z", "zoom", "Full screen", tooltip="One chart alone, then the next, then all again"),
        Binding("comma", "picture(-1)", "Picture before", key_display=",", show=False),
        Binding("full_stop", "picture(1)", "Picture after", key_display=".", show=False),
        Binding("d", "difference", "Difference", show=False, tooltip="Compare its settings with the next marked run"),
        Binding("w", "watch", "Watch in Live", show=False),
        Binding("left_square_bracket", "other(-1)", "Newer run", key_display="[", show=False),
        Binding("right_square_bracket", "other(1)", "Other run", key_display="[ ]"),
        Binding("x", "stop", "Stop", show=False),
        run_actions.RunActionsScreen.KILL,
        run_actions.RunActionsScreen.RESUME,
        Binding("k,up", "scroll(-1)", "Up", show=False),
        Binding("j,down", "scroll(1)", "Down", show=False),
        Binding("ctrl+u,pageup", "scroll(-10)", "Up a page", show=False),
        Binding("ctrl+d,pagedown", "scroll(10)", "Down a page", show=False),
        Binding("g,home", "scroll(-1000000)", "To the top", show=False),
        Binding("G,end", "scroll(1000000)", "To the end", show=False),
        Binding("escape", "back", "Back", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = RunPageReader()
        self._page: RunPage | None = None
        self._lacking: list[Text] = []
        self._answered = False
        self._section = SECTIONS[0]
        self._top: dict[str, int] = {}
        """By section, the lines above the first one that is shown."""
        self._front = ""
        """The chart that has the screen for itself; empty: none has."""
        self._painted = 0.0

    def show_run(self, run: str) -> None:
        """Show this run from now on."""
        if run != self._reader.reader.run:
            self._reader = RunPageReader(run)
            self._page, self._answered, self._top = None, False, {}
            self.view = replace(self.view, cursor=None, window=None)
        if self.is_mounted and self.is_current:
            self.ask()

    # What is asked, and when it is painted.

    def content(self) -> ComposeResult:
        yield Lines(id="facts")
        yield Lines(id="banner")
        yield Lines(id="tabs")
        with Container(id="body"):
            yield Lines(id="text")
            with Container(id="side"):
                for name in CHARTS:
                    yield Chart(id=name)
                yield Images(id="images")

    def on_mount(self) -> None:
        self.set_class(self.console_app.options.ascii, "ascii")
        self.remember_view()
        section = self.console_app.settings.get("run.section", SECTIONS[0])
        self._section = section if section in SECTIONS else SECTIONS[0]
        self.query_one("#text", Lines).painter = self._paint_text
        self.query_one("#facts", Lines).painter = self._paint_facts
        self.query_one("#tabs", Lines).painter = self._paint_tabs
        self.query_one("#images", Images).painter = self._paint_images
        for name in CHARTS:
            self.query_one(f"#{name}", Chart).painter = partial(self._paint_chart, name)
        self._arrange()

    def question(self) -> Question:
        self._reader.overlays.marked = tuple(self.console_app.marked()) if self.overlaid else ()
        return self._reader.read

    def forget(self) -> None:
        super().forget()
        self._reader = RunPageReader(self._reader.reader.run)
        self._page, self._answered, self._lacking = None, False, []
        self._paint_all()

    def show(self, answer: RunPage | RunGone | None) -> bool:
        if answer is not None and answer.run != self._reader.reader.run:
            return False  # an answer about the run before
        first, now = not self._answered, time.monotonic()
        pace = refresh_rate.CHARTS * self.console_app.options.refresh
        if not first and (now - self._painted < pace or refresh_rate.backlog(self.app)):
            return False
        before, self._page = self._page, answer if isinstance(answer, RunPage) else None
        self._answered, self._painted = True, now
        self._lacking = self._lacks(answer)
        if first or _differs(before, self._page):
            self._paint_all()
        elif self._page is not None and self._page.snapshot.live:
            self._paint_facts()
        return True

    def _lacks(self, answer: RunPage | RunGone | None) -> list[Text]:
        name = display(self.console_app.path.name)
        if isinstance(answer, RunGone):
            return [
                Text(f"The run {display(answer.run)} is not in {name} any more.", "bold"),
                Text("] shows another one; 1 goes to the runs."),
            ]
        if answer is None and self.console_app.file is None:
            return [Text(f"There is no database {name}.", "bold"), Text("n begins a run, and makes it.")]
        return []

    def _paint_all(self) -> None:
        self._paint_facts()
        self._paint_banner()
        self._paint_tabs()
        self._paint_text()
        self.paint_charts()
        self._paint_images()

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        body = self.query_one("#body")
        for section in SECTIONS:
            body.set_class(section == self._section, f"in-{section.lower()}")
        body.set_class(self.size.width >= WIDE and self.size.height >= 30, "wide")
        alone = self._front if self._section == "Curves" else ""
        shown = [name for name in CHARTS if self._has(name)]
        room = max(1, self.size.height // 9 - 1)
        for name in CHARTS:
            if self._section == "Curves":
                at = name == alone if alone else name in shown[:room]
            else:
                at = self._section == "Summary" and name == "loss"
            self.query_one(f"#{name}").display = at

    def _has(self, name: str) -> bool:
        """Whether that chart has anything to draw; the first one says so if it has not."""
        return name == "loss" or bool(self._series(name))

    # What is painted.

    @property
    def _snapshot(self) -> RunSnapshot | None:
        return self._page.snapshot if self._page is not None else None

    def _paint_facts(self) -> None:
        snapshot, width = self._snapshot, self.size.width
        lines = [] if snapshot is None else header_lines(snapshot, width, False, self.console_app.options.ascii)
        self.query_one("#facts", Lines).show(lines)

    def _paint_banner(self) -> None:
        pane = self.query_one("#banner", Lines)
        text = (self._lacking or problem_banner(self._snapshot, self.console_app.path.name)) if self._answered else []
        width = max(20, self.size.width - 2)
        lines = [piece for line in text for piece in line.wrap(self.app.console, width)]
        pane.show(lines)
        if pane.display != bool(lines) or pane.styles.height is None or pane.styles.height.value != len(lines):
            pane.display = bool(lines)
            pane.styles.height = max(1, len(lines))

    def _paint_tabs(self) -> None:
        line = Text(no_wrap=True)
        for section in SECTIONS:
            here = section == self._section
            line.append(f"[{section}]" if here else f" {section} ", "bold reverse" if here else "")
            line.append(" ")
        self.query_one("#tabs", Lines).show([line])

    def _text_lines(self, width: int) -> list[Text]:
        page, ascii_ = self._page, self.console_app.options.ascii
        if page is None:
            return []
        width -= 4 * ascii_  # for signs that are two there
        match self._section:
            case "Summary":
                lines = summary_lines(page, width)
            case "Scores":
                lines = scores_lines(page, width)
            case "Config":
                lines = config_lines(page, width)
            case "Files":
                lines = files_lines(page, width)
            case "Log":
                text = page.snapshot.row.traceback
                log = list(page.snapshot.log) + (display_lines(text).splitlines() if text else [])
                lines = [Text(line, no_wrap=True) for line in log] or [Text("It has logged nothing.")]
            case _:
                lines = []
        return [_spelled(line) for line in lines] if ascii_ else lines

    def _paint_text(self) -> None:
        pane = self.query_one("#text", Lines)
        if not pane.display or not pane.size.height:
            return
        lines, height = self._text_lines(pane.size.width), pane.size.height
        most = max(0, len(lines) - height)
        default = most if self._section == "Log" else 0  # a log is read from its end
        top = min(self._top.get(self._section, default), most)
        if top >= most and self._section == "Log":
            self._top.pop(self._section, None)  # it is followed
        elif self._section in self._top:
            self._top[self._section] = top
        shown = [line.copy() for line in lines[top : top + height]]
        for line in shown:
            if line.cell_len > pane.size.width:
                line.truncate(pane.size.width, overflow="ellipsis")
        pane.show(shown)
        below = len(lines) - top - height
        pane.entitle(self._section, f"{counted(below, 'line')} below: j" if below > 0 else "")

    def paint_charts(self) -> None:
        self._arrange()
        for name in CHARTS:
            self._paint_chart(name)

    def _paint_chart(self, name: str) -> None:
        pane, snapshot = self.query_one(f"#{name}", Chart), self._snapshot
        if not pane.display or not pane.size.height:
            return
        view = self.view
        titles = {"loss": "Loss", "accuracy": "Accuracy, %", "speed": "Speed, it/s"}
        if name == "accuracy" and snapshot is not None and snapshot.evaluator != ACCURACY.evaluator:
            titles[name] = display(snapshot.evaluator, 40).capitalize()
        parts = [titles[name]]
        if name == "loss":
            parts += ["log y"] if view.log else []
            parts += [f"smoothed {view.smooth:g}"] if view.smooth else []
            parts += ["a part: 0 shows all"] if view.window else []
            if self._page is not None and self.overlaid:
                parts.append(f"over it {counted(len(self._page.overlays), 'marked run')}, {MOST_OVERLAYS} at most")
        pane.entitle("  ".join(parts))
        nothing = no_loss_reason(snapshot) if snapshot is not None and name == "loss" else ""
        shown = view if name == "loss" else replace(view, log=False, smooth=view.smooth if name == "speed" else 0.0)
        if shown.window is None and snapshot is not None and not snapshot.live:
            shown = replace(shown, window=extent(self.drawn_series()))  # the same for all of them
        ascii_ = self.console_app.options.ascii
        pane.draw(
            self._series(name), shown, ascii=ascii_, steady=snapshot is not None and snapshot.live, nothing=nothing
        )

    def _series(self, name: str) -> list[Series]:
        """The curves of a chart over the axis that is chosen, those of marked runs after its own."""
        page = self._page
        return [] if page is None else curves(name, page.snapshot, page.overlays, self.view.axis)

    def drawn_series(self) -> list[Series]:
        return [one for name in CHARTS if self.query_one(f"#{name}").display for one in self._series(name)]

    def axis_is_known(self, axis: AxisName) -> bool:
        return self._snapshot is None or axis_is_known(self._snapshot, axis)

    def plot_columns(self) -> int:
        return max(self.query_one(f"#{name}", Chart).columns for name in CHARTS)

    def _paint_images(self) -> None:
        pane, snapshot, options = self.query_one("#images", Images), self._snapshot, self.console_app.options
        if not pane.display or not pane.size.height:
            return
        omitted = pane.draw(snapshot.sheet if snapshot else None, colour=options.colour and not options.ascii)
        title = "Synthetic set"
        if snapshot is not None and snapshot.picture is not None:
            number = snapshot.pictures.index(snapshot.picture) + 1
            title += f", iteration {snapshot.picture}  ({number} of {len(snapshot.pictures)})"
            if snapshot.sheet is None:
                pane.show([Text("This picture cannot be read.")])
        pane.entitle(title, omitted)

    # Keys.

    def action_section(self, step: int) -> None:
        at = SECTIONS.index(self._section) + step
        self._section, self._front = SECTIONS[at % len(SECTIONS)], ""
        self.console_app.settings.set("run.section", self._section)
        self._arrange()
        self._paint_tabs()
        self.call_after_refresh(self._paint_all)

    def action_zoom(self) -> None:
        """The first chart alone, then the next, then all."""
        if self._section != "Curves":
            self._section = "Curves"
            self._paint_tabs()
        shown = ["", *(name for name in CHARTS if self._has(name))]
        self._front = shown[(shown.index(self._front) + 1) % len(shown)] if self._front in shown else ""
        self._arrange()
        self.call_after_refresh(self._paint_all)

    def action_scroll(self, lines: int) -> None:
        pane = self.query_one("#text", Lines)
        most = max(0, len(self._text_lines(pane.size.width)) - pane.size.height)
        default = most if self._section == "Log" else 0
        self._top[self._section] = min(max(0, self._top.get(self._section, default) + lines), most)
        self._paint_text()

    def action_cursor(self, step: int) -> None:
        if self._section in ("Curves", "Summary"):
            super().action_cursor(step)

    def action_picture(self, step: int) -> None:
        """Go through the pictures of the set as it formed."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.picture is None:
            self.console_app.say("There is no picture of this run's set yet.")
            return
        at = snapshot.pictures.index(snapshot.picture) + step
        if 0 <= at < len(snapshot.pictures):
            # At the last one it follows the run again.
            last = at == len(snapshot.pictures) - 1
            self._reader.reader.picture_at = None if last else snapshot.pictures[at]
            self._painted = 0.0
            self.ask()

    def action_difference(self) -> None:
        """Compare the settings with the next of the marked runs, then with the nearest earlier one again."""
        uid = self._page.snapshot.row.uid if self._page is not None else ""
        marked = [one for one in self.console_app.marked() if one != uid]
        if not marked and not self._reader.against:
            self.console_app.say("No other run is marked: in Runs, space marks one, and d compares it with this one.")
            return
        order = ["", *marked]
        at = order.index(self._reader.against) if self._reader.against in order else 0
        self._reader.against = order[(at + 1) % len(order)]
        self._painted, self._section = 0.0, "Config"
        self._arrange()
        self._paint_tabs()
        self.ask()

    def action_other(self, step: int) -> None:
        """Go to the next run: those that go on first, then the newest."""
        order, run = self.read_now(runs), self._reader.reader.run
        to = order.index(run) + step if run in order else 0
        if 0 <= to < len(order):
            self.show_run(order[to])
        else:
            self.console_app.say("There is no other run in that direction.")

    def action_watch(self) -> None:
        """The same run in Live."""
        if self._reader.reader.run:
            self.console_app.watch_run(self._reader.reader.run)

    def action_back(self) -> None:
        if self._front:
            self._front = ""
            self._arrange()
            self.call_after_refresh(self._paint_all)
        elif self.view.cursor is not None or self.view.window is not None:
            self.action_whole()
        else:
            self.console_app.go("runs")

    def selected_run(self) -> RunRow | None:
        """The whole row of the run that is shown."""
        run = self._reader.reader.run
        if not run:
            return None
        row: RunRow = self.read_now(partial(_row, run=run))
        if self._page is not None and row.uid != self._page.snapshot.row.uid:
            raise BadInput(f"{run} is another run now: look at what is shown, and press the key again.")
        return row

    def to_copy(self) -> str:
        """The command that makes the run again; in other sections what stands there."""
        page = self._page
        if page is None:
            return ""
        match self._section:
            case "Summary" | "Config" | "Images":
                return page.command or page.run
            case "Curves":
                return _csv(self.drawn_series(), self.view.axis)
            case "Log":
                return page.snapshot.row.traceback or "\n".join(page.snapshot.log)
            case _:
                return "\n".join(line.plain.rstrip() for line in self._text_lines(400))


def _row(store: Store, run: str) -> RunRow:
    return store.run(run)


def _differs(before: RunPage | None, now: RunPage | None) -> bool:
    """Whether anything of a page is to be painted anew."""
    if before is None or now is None:
        return before is not now
    old, new = before.snapshot, now.snapshot
    return (
        (before.details is not now.details or before.overlays != now.overlays)
        or (old.losses is not new.losses or old.log != new.log or old.sheet is not new.sheet)
        or (old.state != new.state or old.picture != new.picture or old.row != new.row)
    )


def _spelled(line: Text) -> Text:
    """Signs that are two in ASCII, in place of the one."""
    for sign in "±≥≤→":
        if sign in line.plain:
            line = Text(spelled(sign)).join(line.split(sign, allow_blank=True))
    return line


def _csv(series: list[Series], axis: AxisName) -> str:
    """Curves as lines of text for another program."""
    lines = [f"series,{axis},value"]
    for one in series:
        name = '"' + one.name.replace('"', '""') + '"'
        lines += [f"{name},{x:.9g},{y:.9g}" for x, y in zip(one.x, one.y, strict=True)]
    return "\n".join(lines) if len(lines) > 1 else ""
