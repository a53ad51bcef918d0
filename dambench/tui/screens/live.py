"""Live: one run as it goes on or, the same way, as it went."""

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container

from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.runner import monitor, processes
from dambench.store.metrics import ACCURACY
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui import hints, run_actions
from dambench.tui.charting import ChartScreen
from dambench.tui.feed import Question
from dambench.tui.models.alerts import alerts
from dambench.tui.models.chart import MARGIN, ChartLook, Series, legend, lines
from dambench.tui.models.chart_view import UNITS, AxisName, extent
from dambench.tui.models.curves import OverlayReader, axis_is_known, curves, over_it
from dambench.tui.models.live_panes import (
    accuracy_lines,
    header_lines,
    lacking_lines,
    machine_lines,
    no_loss_reason,
    problem_banner,
    timing_lines,
)
from dambench.tui.models.run_reader import RunGone, RunReader, RunSnapshot, idle_pictures, runs
from dambench.tui.models.surroundings import SurroundingsReader, card_lines
from dambench.tui.terminal import refresh_rate
from dambench.tui.widgets.chart import Chart
from dambench.tui.widgets.images import Images
from dambench.tui.widgets.lines import Lines

WINDOW_SECONDS = 600.0
TALL = 36
"""Lines of a terminal that has room for all panes at once, if it is wide, too."""


class LiveScreen(ChartScreen):
    """One run: how far it is, what it loses, what it takes, and the images as they form."""

    NAME: ClassVar[str] = "Live"
    PANES: ClassVar[tuple[str, ...]] = ("loss", "machine", "accuracy", "time", "images", "log")

    BINDINGS: ClassVar[list[BindingType]] = [
        *ChartScreen.CHART_KEYS,
        Binding("w", "window", "Last minutes", show=False),
        Binding("space", "freeze", "Freeze"),
        Binding("i", "images", "Images"),
        Binding(
            "A", "several", "All", show=False, tooltip="All runs that go on, or the marked ones, beside each other"
        ),
        Binding("left_square_bracket", "other(-1)", "Newer run", key_display="[", show=False),
        Binding("right_square_bracket", "other(1)", "Other run", key_display="[ ]"),
        Binding("comma", "picture(-1)", "Picture before", key_display=",", show=False),
        Binding("full_stop", "picture(1)", "Picture after", key_display=".", show=False),
        Binding("f", "follow", "Follow the log", show=False),
        Binding("E", "pager", "Log in $PAGER", show=False),
        Binding("z", "zoom", "Zoom pane", show=False),
        run_actions.RunActionsScreen.STOP,
        run_actions.RunActionsScreen.KILL,
        run_actions.RunActionsScreen.RESUME,
        Binding("k,up", "scroll(1)", "Log up", show=False),
        Binding("j,down", "scroll(-1)", "Log down", show=False),
        Binding("ctrl+u,pageup", "scroll(10)", "Log up a page", show=False),
        Binding("ctrl+d,pagedown", "scroll(-10)", "Log down a page", show=False),
        Binding("g,home", "scroll(1000000)", "Beginning of the log", show=False),
        Binding("G,end", "scroll(-1000000)", "End of the log", show=False),
        Binding(
            "enter", "open", "Whole run", show=False, tooltip="All of the run: what changed, scores, settings, files"
        ),
        Binding("escape", "back", "Back", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = RunReader()
        self._overlays = OverlayReader()
        self._snapshot: RunSnapshot | None = None
        self._lacking: list[Text] = []
        """Why there is none, where something has gone."""
        self._answered = False
        """The database has answered about this run."""
        self._frozen = False
        self._back = 0
        """Lines of the log below the ones that are shown; 0: it is followed."""
        self._zoomed = ""
        self._charted = 0.0
        self._painted = 0.0
        self._pictured: object = None
        self._next_picture = 0.0
        self._why = WhyNoGpu()
        self._surroundings = SurroundingsReader()

    def watch_run(self, run: str) -> None:
        """Show this run from now on."""
        if run != self._reader.run:
            self._reader = RunReader(run)
            self._snapshot, self._answered, self._back, self._frozen = None, False, 0, False
            self.view = replace(self.view, cursor=None, window=None)
        if self.is_mounted and self.is_current:
            self.ask()

    # What is asked, and when it is painted.

    def content(self) -> ComposeResult:
        yield Lines(id="facts")
        yield Lines(id="banner")
        with Container(id="panes"):
            yield Chart(id="loss")
            yield Lines(id="machine")
            yield Chart(id="accuracy")
            yield Lines(id="time")
            yield Images(id="images")
            yield Lines(id="log")

    def on_mount(self) -> None:
        self.set_class(self.console_app.options.ascii, "ascii")
        self.remember_view()
        for name in self.PANES:
            self._pane(name).can_focus = True
        painters: dict[str, Callable[[], None]] = {
            "facts": self._paint_facts,
            "loss": self._paint_loss,
            "machine": self._paint_machine,
            "accuracy": self._paint_accuracy,
            "time": self._paint_time,
            "images": self._paint_images,
            "log": self._paint_log,
        }
        for name, paint in painters.items():
            self.query_one(f"#{name}", Lines).painter = paint
        self.set_interval(refresh_rate.NUMBERS * self.console_app.options.refresh, self._tick)

    def question(self) -> Question:
        self._overlays.marked = tuple(self.console_app.marked()) if self.overlaid else ()
        return partial(_read, self._reader, self._overlays, self._surroundings, self.console_app.path)

    def forget(self) -> None:
        super().forget()
        self._reader = RunReader(self._reader.run)
        self._snapshot, self._answered, self._back, self._frozen = None, False, 0, False
        self._lacking = []
        self._paint_all()

    def show(self, answer: RunSnapshot | RunGone | None) -> bool:
        if answer is not None and answer.run != self._reader.run:
            return False  # an answer about the run before
        first = not self._answered
        self._answered = True
        if self._frozen and not first:
            return True  # as it was asked for: it says so itself
        self._snapshot = answer if isinstance(answer, RunSnapshot) else None
        self._lacking = lacking_lines(answer, self.console_app.path.name, self.console_app.file is not None, "live")
        if first:
            self._paint_all()
        return True

    def _tick(self) -> None:
        """Paint what is new, if the terminal has taken in what was painted before."""
        now = time.monotonic()
        if not (self.is_current and self._answered) or refresh_rate.backlog(self.app):
            return
        if not self.app.app_focus and now - self._painted < refresh_rate.UNSEEN:
            return
        self._painted = now
        self._paint_banner()
        self._paint_facts()
        self._paint_log()
        if now - self._charted >= refresh_rate.CHARTS * self.console_app.options.refresh - 0.1:
            self._charted = now
            for paint in (self._paint_loss, self._paint_machine, self._paint_accuracy, self._paint_time):
                paint()
        if self._snapshot is not None and self._pictured is not self._snapshot.sheet and now >= self._next_picture:
            self._paint_images()

    def _paint_all(self) -> None:
        self._charted = self._painted = time.monotonic()
        self._paint_banner()
        self._paint_facts()
        for name in self.PANES:
            pane = self._pane(name)
            if pane.painter:
                pane.painter()

    def _pane(self, name: str) -> Lines:
        return self.query_one(f"#{name}", Lines)

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        large = self.size.width >= 100 and self.size.height >= TALL
        panes = self.query_one("#panes")
        panes.set_class(large and not self._zoomed, "large")
        panes.set_class(bool(self._zoomed), "zoomed")
        for name in self.PANES:
            self._pane(name).set_class(name == self._zoomed, "front")

    # What is painted.

    def _paint_facts(self) -> None:
        pane = self._pane("facts")
        snapshot, width = self._snapshot, self.size.width
        pane.show(
            [] if snapshot is None else header_lines(snapshot, width, self._frozen, self.console_app.options.ascii)
        )

    def _paint_banner(self) -> None:
        pane = self._pane("banner")
        text = (self._lacking or problem_banner(self._snapshot, self.console_app.path.name)) if self._answered else []
        if self._snapshot is not None:
            found = alerts(self._snapshot, self._surroundings.last.free_bytes)
            text = [*text, *(Text(f"! {alert.mark}: {display(alert.text, 200)}.", "bold") for alert in found)]
        pane.show_whole(text, max(20, self.size.width - 2))

    def _series(self) -> list[Series]:
        """The losses that are drawn, those of marked runs after the run's own."""
        snapshot = self._snapshot
        if snapshot is None:
            return []
        series = curves("loss", snapshot, self._overlays.snapshots if self.overlaid else (), self.view.axis)
        own = [one for one in series[: len(snapshot.losses)] if len(one.x)]
        if self._last_minutes() and len(snapshot.seconds) and own:
            first = int(snapshot.seconds.searchsorted(snapshot.seconds[-1] - WINDOW_SECONDS))
            passed = snapshot.iterations[first] / snapshot.iterations[-1]
            begin = snapshot.seconds[first] if self.view.axis == "seconds" else passed * max(one.x[-1] for one in own)
            series = [one.since(float(begin)) for one in series]
        return series

    def drawn_series(self) -> list[Series]:
        return self._series()

    def axis_is_known(self, axis: AxisName) -> bool:
        return self._snapshot is None or axis_is_known(self._snapshot, axis)

    def plot_columns(self) -> int:
        return self.query_one("#loss", Chart).columns

    def paint_charts(self) -> None:
        self._paint_loss()
        self._paint_accuracy()

    def _paint_loss(self) -> None:
        pane, snapshot, view = self.query_one("#loss", Chart), self._snapshot, self.view
        title = ["Loss", "log y" if view.log else "", f"smoothed {view.smooth:g}" if view.smooth else ""]
        title.append(f"last {WINDOW_SECONDS / 60:.0f} min" if self._last_minutes() else "whole run")
        title += [f"a part: {hints.hint('live.whole-chart', '0')} shows all"] if view.window else []
        title += [over_it(self._series(), self._overlays.snapshots)] if self.overlaid else []
        pane.entitle("  ".join(part for part in title if part))
        steady = snapshot is not None and snapshot.live
        nothing = "" if snapshot is None else no_loss_reason(snapshot)
        pane.draw(self._series(), view, ascii=self.console_app.options.ascii, steady=steady, nothing=nothing)

    def _paint_machine(self) -> None:
        pane, snapshot = self._pane("machine"), self._snapshot
        width, height = pane.size
        if snapshot is None:
            pane.entitle("Machine")
            pane.show([])
            return
        here = snapshot.environment
        on_gpu = here is not None and here.device != "cpu"
        title = display(here.device_name if here and on_gpu else "Host", max(8, width - 4))
        why = "" if on_gpu or here is None or not processes.is_here(snapshot.row) else self._why.text(here.cuda)
        ascii_ = self.console_app.options.ascii
        lines = machine_lines(snapshot, width, height, ascii=ascii_, why=why)
        if not self._pane("time").display:
            lines += [Text(("-" if ascii_ else "─") * width, "dim"), *timing_lines(snapshot, width, ascii=ascii_)]
        if cards := self._surroundings.last.cards:
            lines += card_lines(cards, snapshot.row.pid, width, ascii=ascii_)
        self._fill(pane, title, lines)

    def _paint_accuracy(self) -> None:
        pane, snapshot = self.query_one("#accuracy", Chart), self._snapshot
        accuracies = snapshot.accuracies if snapshot else ()
        names = {one.network for one in accuracies}
        title = "Accuracy, %" + (f"  {display(names.pop(), 24)}" if len(names) == 1 else "")
        if snapshot and snapshot.evaluator != ACCURACY.evaluator:
            title = display(snapshot.evaluator, 40).capitalize()
        table = accuracy_lines(snapshot, pane.size.width, ascii=self.console_app.options.ascii) if snapshot else []
        several = len({one.iteration for one in accuracies}) > 2
        room = pane.size.height - 5
        if not several or room < 5:
            self._fill(pane, title, table)
            return
        options = self.console_app.options
        drawn = curves("accuracy", snapshot, (), self.view.axis) if snapshot else []
        cursor, window = self.view.cursor, self.view.window
        begin, end = self.view.shown(extent(drawn))
        look = ChartLook(at=cursor, window=window, step=(end - begin) / max(1, pane.size.width - MARGIN - 1))
        plot = lines(
            drawn,
            pane.size.width,
            room,
            ascii=options.ascii,
            unit=UNITS[self.view.axis],
            cursor=cursor,
            window=window,
        )
        self._fill(pane, title, [legend(drawn, look), *plot, *table])

    def _paint_time(self) -> None:
        pane, snapshot = self._pane("time"), self._snapshot
        lines = (
            [] if snapshot is None else timing_lines(snapshot, pane.size.width, ascii=self.console_app.options.ascii)
        )
        self._fill(pane, "Time per iteration", lines)

    def _fill(self, pane: Lines, title: str, lines: list[Text]) -> None:
        """Show what there is room for; how much more there is stands on the border. `z` makes the pane larger."""
        more = len(lines) - pane.size.height if pane.size.height else 0
        key = hints.hint("live.zoom-pane", "z")
        pane.entitle(title, f"{counted(more, 'line')} more: {key}" if more > 0 else "")
        pane.show(lines[: len(lines) - max(0, more)])

    def _paint_images(self) -> None:
        pane, snapshot, options = self.query_one("#images", Images), self._snapshot, self.console_app.options
        sheet = snapshot.sheet if snapshot else None
        self._pictured = sheet
        if not pane.display:
            return
        omitted = pane.draw(sheet, colour=options.colour and not options.ascii)
        cells = sum(line.cell_len for line in pane.lines)
        self._next_picture = (
            time.monotonic() + cells / refresh_rate.PICTURE_CELLS + pane.sent / refresh_rate.PIXEL_BYTES
        )
        title = "Synthetic set"
        if snapshot is not None and snapshot.picture is not None:
            number = snapshot.pictures.index(snapshot.picture) + 1
            title += f", iteration {snapshot.picture}  ({number} of {len(snapshot.pictures)})"
            if sheet is None:
                pane.place([Text("This picture cannot be read.")], [])
        pane.entitle(title, omitted)

    def _paint_log(self) -> None:
        pane, snapshot = self._pane("log"), self._snapshot
        log = snapshot.log if snapshot else ()
        height = max(1, pane.size.height)
        self._back = min(self._back, max(0, len(log) - height))
        end = len(log) - self._back
        pane.entitle("Log" + (f"  {self._back} lines below" if self._back else ""))
        shown = [Text(line, no_wrap=True) for line in log[max(0, end - height) : end]]
        for line in shown:
            line.truncate(pane.size.width, overflow="ellipsis")
        pane.show(shown)

    def _last_minutes(self) -> bool:
        return bool(self.console_app.settings.get("live.window", False))

    # Keys.

    def action_window(self) -> None:
        self.console_app.settings.set("live.window", not self._last_minutes())
        self._paint_loss()

    def action_freeze(self) -> None:
        """Hold the view; the run goes on."""
        self._frozen = not self._frozen
        self._paint_facts()
        if not self._frozen:
            self.ask()

    def action_other(self, step: int) -> None:
        """Go to the next run: those that go on first, then the newest."""
        order = self.read_now(runs)
        to = order.index(self._reader.run) + step if self._reader.run in order else 0
        if 0 <= to < len(order):
            self.watch_run(order[to])
        else:
            self.console_app.say("There is no other run in that direction.")

    def action_picture(self, step: int) -> None:
        """Go through the pictures of the set as it formed."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.picture is None:
            self.console_app.say("There is no picture of this run's set yet.")
            return
        at = snapshot.pictures.index(snapshot.picture) + step
        if 0 <= at < len(snapshot.pictures):
            # At the last one it follows the run again.
            self._reader.picture_at = None if at == len(snapshot.pictures) - 1 else snapshot.pictures[at]
            self._frozen, self._next_picture = False, 0.0
            self.ask()

    def action_images(self) -> None:
        self._zoom("" if self._zoomed == "images" else "images")

    def action_zoom(self) -> None:
        """Only the pane that has the focus, or all again."""
        front = self.focused.id if self.focused is not None else None
        self._zoom("" if self._zoomed else front or "loss")

    def _zoom(self, name: str) -> None:
        self._zoomed = name
        self._arrange()
        self.call_after_refresh(self._paint_all)

    def action_follow(self) -> None:
        self._back = 0
        self._paint_log()

    def scroll_lines(self, lines: int) -> None:
        self.action_scroll(-lines)

    def action_scroll(self, lines: int) -> None:
        self._back = max(0, self._back + lines)
        self._paint_log()

    def action_pager(self) -> None:
        """The end of the log in $PAGER."""
        if self.console_app.options.served:
            self.console_app.say("There is no $PAGER in a browser.", "warning")
            return
        log = "\n".join(self._snapshot.log if self._snapshot else ())
        if not log:
            self.console_app.say("There is no log yet.")
            return
        pager = shlex.split(os.environ.get("PAGER") or "less")
        try:
            with self.app.suspend():
                subprocess.run(pager, input=log.encode(), check=False)
        except (OSError, SuspendNotSupported) as error:
            self.console_app.say(f"{' '.join(pager)} cannot be opened: {error}", "warning")

    def idle_actions(self) -> set[str]:
        idle, snapshot = super().idle_actions(), self._snapshot
        if snapshot is None:
            return idle | {"open", "freeze", "window", "images", "picture(-1)", "picture(1)", "follow", "pager"}
        idle |= idle_pictures(snapshot)
        if snapshot.picture is None:
            idle.add("images")
        if not (snapshot.live or self._frozen):
            idle.add("freeze")
        if not snapshot.losses:
            idle.add("window")
        if not self._back:
            idle.add("follow")
        return idle if snapshot.log else idle | {"pager"}

    def front_row(self) -> RunRow | None:
        return None if self._snapshot is None else self._snapshot.row

    def front_state(self) -> str:
        return "" if self._snapshot is None else self._snapshot.state

    def selected_run(self) -> RunRow | None:
        """The whole row of the run that is shown."""
        if not self._reader.run:
            return None
        row: RunRow = self.read_now(lambda store: store.run(self._reader.run))
        if self._snapshot is not None and row.uid != self._snapshot.row.uid:
            raise BadInput(f"{self._reader.run} is another run now: look at what is shown, and press the key again.")
        return row

    def action_several(self) -> None:
        """All runs that go on, or the marked ones."""
        self.console_app.go("several")

    def action_open(self) -> None:
        """All of the run, in Run."""
        if self._reader.run:
            self.console_app.show_whole(self._reader.run)

    def action_back(self) -> None:
        if self._zoomed:
            self._zoom("")
        elif self.view.cursor is not None or self.view.window is not None:
            self.action_whole()
        else:
            self.console_app.go("runs")

    def to_copy(self) -> str:
        """The traceback of a run that failed, else its id."""
        return (self._snapshot.row.traceback or self._snapshot.row.id) if self._snapshot else ""


def _read(
    reader: RunReader, overlays: OverlayReader, surroundings: SurroundingsReader, path: Path, store: Store
) -> RunSnapshot | RunGone | None:
    """Read a run, those that are drawn over it, and what is around it."""
    answer = reader.read(store)
    surroundings.read(path, answer)
    if isinstance(answer, RunSnapshot):
        overlays.read(store, answer.row.uid)
    return answer


class WhyNoGpu:
    """Why runs here use the CPU: asked once, by a thread, since a driver may hang."""

    def __init__(self, explain: Callable[[str, int], str] | None = None) -> None:
        self._explain = explain or monitor.explain
        self._reasons: dict[str, str] = {}

    def text(self, cuda: str) -> str:
        """In a sentence; empty: not known yet.

        Args:
            cuda: the version that torch is built with; empty: none.
        """
        if cuda not in self._reasons:
            self._reasons[cuda] = ""
            threading.Thread(target=self._ask, args=(cuda,), name="why no GPU", daemon=True).start()
        return self._reasons[cuda]

    def _ask(self, cuda: str) -> None:
        self._reasons[cuda] = self._explain(cuda, 0)
