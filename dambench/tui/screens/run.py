"""Run: one run, whole: what changed, its images, curves, scores, settings, log and files."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.geometry import Offset

from dambench.core.errors import BadInput
from dambench.core.half_blocks import in_part
from dambench.core.sanitize import counted, display, display_lines
from dambench.store.metrics import ACCURACY
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui import hints, run_actions
from dambench.tui.charting import ChartScreen
from dambench.tui.feed import Question
from dambench.tui.models.chart import Series
from dambench.tui.models.chart_view import AxisName, extent
from dambench.tui.models.curves import axis_is_known, curves, over_it
from dambench.tui.models.image_matrix import Large, chosen, large, matrix, scrubber
from dambench.tui.models.live_panes import header_lines, lacking_lines, no_loss_reason, problem_banner
from dambench.tui.models.placed import Placed
from dambench.tui.models.run_page import (
    RunPage,
    RunPageReader,
    config_lines,
    files_lines,
    scores_lines,
    summary_lines,
)
from dambench.tui.models.run_reader import RunGone, RunSnapshot, idle_pictures, runs
from dambench.tui.models.sheet import Sheet
from dambench.tui.set_pictures import SetPictures
from dambench.tui.terminal import refresh_rate
from dambench.tui.terminal.ascii_filter import spelled
from dambench.tui.widgets.chart import Chart
from dambench.tui.widgets.images import Images, Pictures
from dambench.tui.widgets.jump import Target
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
        Binding("b", "before", "Before", show=False, tooltip="Show each image beside what it was in the first picture"),
        Binding("N", "made('nearest')", "Nearest real image", show=False),
        Binding("e", "made('decoded')", "Decode mosaics", show=False, tooltip="Show mosaics as networks see them"),
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
        self._at = 0, 0
        """Class and index of the image that is shown large."""
        self._before = True
        """The first picture is shown beside."""
        self._decoded = False
        """Mosaics are shown as networks see them."""
        self._made: dict[tuple[str, str], Sheet] = {}
        """Pictures that a child has made, by run and kind."""
        self._complaint = ""
        """A sentence on why the last one could not be made."""
        self._pictures = SetPictures(self._take_picture)
        self._front = ""
        """The chart that has the screen for itself; empty: none has."""
        self._painted = 0.0

    def show_run(self, run: str) -> None:
        """Show this run from now on."""
        if run != self._reader.reader.run:
            self._reader = RunPageReader(run)
            self._page, self._answered, self._top = None, False, {}
            self._at, self._decoded, self._complaint = (0, 0), False, ""
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
            with Container(id="gallery"):
                yield Pictures(id="matrix")
                yield Pictures(id="large")

    def on_mount(self) -> None:
        self.set_class(self.console_app.options.ascii, "ascii")
        self.remember_view()
        section = self.console_app.settings.get("run.section", SECTIONS[0])
        self._section = section if section in SECTIONS else SECTIONS[0]
        self.query_one("#text", Lines).painter = self._paint_text
        self.query_one("#facts", Lines).painter = self._paint_facts
        self.query_one("#tabs", Lines).painter = self._paint_tabs
        for name in ("images", "matrix", "large"):
            self.query_one(f"#{name}", Lines).painter = self._paint_images
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
        self._lacking = lacking_lines(answer, self.console_app.path.name, self.console_app.file is not None, "run")
        if first or _differs(before, self._page):
            self._paint_all()
        elif self._page is not None and self._page.snapshot.live:
            self._paint_facts()
        return True

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
        name = self.console_app.path.name
        text = (self._lacking or problem_banner(self._snapshot, name, "run")) if self._answered else []
        pane.show_whole(text, max(20, self.size.width - 2))

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
        pane.entitle(
            self._section, f"{counted(below, 'line')} below: {hints.hint('run.down', 'j')}" if below > 0 else ""
        )

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
        if name == "loss" and view.log:
            parts.append("log y")
        if name != "accuracy" and view.smooth:
            parts.append(f"smoothed {view.smooth:g}")
        if name == "loss":
            parts += [f"a part: {hints.hint('run.whole-chart', '0')} shows all"] if view.window else []
            if self._page is not None and self.overlaid:
                parts.append(over_it(self._series(name), self._page.overlays))
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
        side = self.query_one("#side").display
        return [one for name in CHARTS if side and self.query_one(f"#{name}").display for one in self._series(name)]

    def axis_is_known(self, axis: AxisName) -> bool:
        return self._snapshot is None or axis_is_known(self._snapshot, axis)

    def plot_columns(self) -> int:
        return max(self.query_one(f"#{name}", Chart).columns for name in CHARTS)

    def _paint_images(self) -> None:
        if self._section == "Images":
            self._paint_matrix()
            return
        pane, snapshot, options = self.query_one("#images", Images), self._snapshot, self.console_app.options
        if not pane.display or not pane.size.height:
            return
        omitted = pane.draw(snapshot.sheet if snapshot else None, colour=options.colour and not options.ascii)
        title = "Synthetic set"
        if snapshot is not None and snapshot.picture is not None:
            title += f", iteration {snapshot.picture}"
        pane.entitle(title, omitted)

    def _sheet(self) -> Sheet | None:
        """The pictures that are looked at: what networks are trained on, where mosaics are decoded."""
        snapshot = self._snapshot
        if snapshot is None:
            return None
        return self._made.get((snapshot.run, "decoded")) if self._decoded else snapshot.sheet

    def _paint_matrix(self) -> None:
        """Images by class and index, and the chosen one large, as it was at first, is, and beside a real one."""
        pane, beside, page = self.query_one("#matrix", Pictures), self.query_one("#large", Pictures), self._page
        if not pane.size.height:
            return
        options, sheet = self.console_app.options, self._sheet()
        colour = options.colour and not options.ascii
        if page is None or sheet is None:
            pane.place([Text("No picture of its set is kept." if page else "")], [])
            beside.place([], [])
            return
        classes, each = sheet.images.shape[:2]
        self._at = min(self._at[0], classes - 1), min(self._at[1], each - 1)
        snapshot, width = page.snapshot, pane.size.width
        rail = scrubber(snapshot.pictures, snapshot.picture, width, ascii=options.ascii)
        placed: list[Placed] = []
        height = pane.size.height - 1
        shown = matrix(sheet, self._at, width, height, colour=colour, ascii=options.ascii, placed=placed)
        pane.place([rail, *shown], [replace(one, y=one.y + 1) for one in placed])
        pane.entitle("Mosaics, decoded" if self._decoded else "Synthetic set", _omitted(sheet))
        name = sheet.classes[self._at[0]] if self._at[0] < len(sheet.classes) else str(self._at[0])
        beside.entitle(f"{display(name, 30)}, image {self._at[1] + 1} of {each}")
        big: list[Placed] = []
        lines = large(self._large(page, sheet), beside.size.width, beside.size.height, colour=colour, placed=big)
        beside.place(lines, big)

    def _large(self, page: RunPage, sheet: Sheet) -> list[Large]:
        """The chosen image, what it was in the first picture, and the nearest real one."""
        snapshot, at, now = page.snapshot, self._at, chosen(sheet, self._at)
        one = "this run kept one picture" if len(snapshot.pictures) < 2 else "it is this one"
        first = None if self._decoded or snapshot.picture == snapshot.pictures[0] else chosen(page.first, at)
        images = [Large(f"at {snapshot.picture}", now)]
        if self._before or first is None:
            why = "mosaics are not decoded there" if self._decoded and len(snapshot.pictures) > 1 else one
            images.insert(0, Large(f"at {snapshot.pictures[0]}, the first", first, why))
        if (run := snapshot.run) and (nearest := self._made.get((run, "nearest"))) is not None:
            fits = self._decoded or not _is_mosaic(page)
            real = chosen(nearest, at) if fits and snapshot.picture == snapshot.pictures[-1] else None
            images.append(Large("nearest real", real, "" if real is not None else "known of the last set alone"))
        else:
            why = self._complaint or f"{hints.hint('run.nearest-real-image', 'N')} looks for it"
            images.append(Large("nearest real", None, why))
        return images

    # Keys.

    def action_before(self) -> None:
        """Show the first picture beside the one that is shown, or no more."""
        self._before = not self._before
        self._paint_images()

    def action_made(self, kind: str) -> None:
        """Have the nearest real images looked for, or mosaics decoded, by a child with torch."""
        page = self._page
        if page is None or self._section != "Images":
            self.console_app.say(f"That is for the section Images: {hints.hint('run.next-section', 'tab')} goes there.")
            return
        if kind == "decoded" and not _is_mosaic(page):
            self.console_app.say("The images of this set are no mosaics: networks are trained on them as they are.")
        elif (page.run, kind) in self._made:
            if kind == "decoded":
                self._show_decoded(not self._decoded)
        elif self.console_app.options.served:
            self.console_app.say("Nothing is computed from a browser.", "warning")
        elif self._pictures.ask(self.console_app.path, page.run, kind):
            what = "Mosaics are being decoded" if kind == "decoded" else "The nearest real images are being looked for"
            self.console_app.say(f"{what} …")
        else:
            self.console_app.say("A picture is being made already.")

    def _take_picture(self, run: str, kind: str, png: bytes, complaint: str) -> None:
        """Take in a picture that a child has made; in its thread."""

        def take() -> None:
            page, fault = self._page, complaint
            here = page if page is not None and page.run == run else None
            if not fault and here is not None:
                card = here.snapshot.card
                try:
                    self._made[run, kind] = Sheet.read(png, card.height, card.width, card.classes, 0)
                except ValueError as error:
                    fault = f"The picture that was made cannot be read: {error}"
                else:
                    if kind == "decoded":
                        self._show_decoded(True)
            if fault:
                self._complaint = fault if here is not None else self._complaint
                self.console_app.say(fault if here is not None else f"{run}: {fault}", "warning")
            self._paint_images()

        with suppress(Exception):  # the console may have gone
            self.app.call_from_thread(take)

    def _show_decoded(self, decoded: bool) -> None:
        """Show mosaics as networks see them: those of the last set, of which there are tensors; or as they are kept."""
        self._decoded, self._reader.reader.picture_at = decoded, None
        self._painted = 0.0
        self.ask()
        self._paint_images()

    def on_unmount(self) -> None:
        self._pictures.close()

    def jump_targets(self) -> Iterator[Target]:
        """The sections."""
        at = self.query_one("#tabs").content_region.offset
        for number, section in enumerate(SECTIONS):
            yield Target(at, partial(self._go_to, number))
            at += Offset(len(section) + 3, 0)

    def action_section(self, step: int) -> None:
        self._go_to(SECTIONS.index(self._section) + step)

    def _go_to(self, at: int) -> None:
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

    def _choose(self, classes: int, images: int) -> None:
        """Go to another image of the set."""
        if (sheet := self._sheet()) is not None:
            rows, each = sheet.images.shape[:2]
            at = self._at[0] + classes, self._at[1] + images
            self._at = min(max(0, at[0]), rows - 1), min(max(0, at[1]), each - 1)
            self._paint_images()

    def scroll_lines(self, lines: int) -> None:
        self.action_scroll(lines)

    def action_scroll(self, lines: int) -> None:
        if self._section == "Images":
            self._choose(lines, 0)
            return
        pane = self.query_one("#text", Lines)
        most = max(0, len(self._text_lines(pane.size.width)) - pane.size.height)
        default = most if self._section == "Log" else 0
        self._top[self._section] = min(max(0, self._top.get(self._section, default) + lines), most)
        self._paint_text()

    def action_cursor(self, step: int) -> None:
        if self._section == "Images":
            self._choose(0, step)
        elif self._section in ("Curves", "Summary"):
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
            self._decoded, last = False, at == len(snapshot.pictures) - 1
            self._reader.reader.picture_at = None if last else snapshot.pictures[at]
            self._painted = 0.0
            self.ask()

    def action_difference(self) -> None:
        """Compare the settings with the next of the marked runs, then with the nearest earlier one again."""
        marked = self._marked_others()
        if not marked and not self._reader.against:
            keys = hints.hint("runs.mark", "space"), hints.hint("run.difference", "d")
            self.console_app.say(
                f"No other run is marked: in Runs, {keys[0]} marks one, and {keys[1]} here compares it with this one."
            )
            return
        order = ["", *marked]
        at = order.index(self._reader.against) if self._reader.against in order else 0
        self._reader.against = order[(at + 1) % len(order)]
        self._painted, self._section = 0.0, "Config"
        self._arrange()
        self._paint_tabs()
        self.ask()

    def _marked_others(self) -> list[str]:
        """The uids of the other runs that are marked."""
        uid = self._page.snapshot.row.uid if self._page is not None else ""
        return [one for one in self.console_app.marked() if one != uid]

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

    def idle_actions(self) -> set[str]:
        idle, snapshot = super().idle_actions(), self._snapshot
        idle |= set() if self._section == "Images" else {"before", "made('nearest')", "made('decoded')"}
        if not self._reader.against and len(self._marked_others()) == 0:
            idle.add("difference")
        if snapshot is None or self._page is None:
            return idle | {"zoom", "picture(-1)", "picture(1)", "before", "made('nearest')", "made('decoded')", "watch"}
        wide = self.query_one("#body").has_class("wide")
        if self._section == "Images" or (self._section == "Summary" and wide):
            idle |= idle_pictures(snapshot)
        else:
            idle |= {"picture(-1)", "picture(1)"}
        if self._section == "Images":
            idle = idle - {"cursor(-1)", "cursor(1)"} if self._sheet() is not None else idle
            idle |= set() if _is_mosaic(self._page) else {"made('decoded')"}
            idle |= {"before"} if self._decoded or len(snapshot.pictures) < 2 else set()
        return idle

    def front_row(self) -> RunRow | None:
        return None if self._snapshot is None else self._snapshot.row

    def front_state(self) -> str:
        return "" if self._snapshot is None else self._snapshot.state

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


def _is_mosaic(page: RunPage) -> bool:
    """Each image of its set is several for a network."""
    options = json.loads(page.snapshot.row.config).get("method", {}).get("options", {})
    factor = options.get("factor", 1)
    return isinstance(factor, int) and factor > 1


def _omitted(sheet: Sheet) -> str:
    """How much of a set a picture shows, in words; empty: all, or not known."""
    classes, each = sheet.images.shape[:2]
    of = max(classes, len(sheet.classes))
    return in_part(classes, each, of, sheet.count, even=sheet.even) if sheet.count else ""


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
        values = zip(one.x.tolist(), one.y.tolist(), strict=True)
        lines += [",".join([name, *(repr(float(value)).removesuffix(".0") for value in pair)]) for pair in values]
    return "\n".join(lines) if len(lines) > 1 else ""
