"""Report: the document that `dambench report` writes, before it is written, and what is missing or mixed in it."""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Offset
from textual.widgets import Static

from dambench.core import files, registry
from dambench.core.errors import BadInput
from dambench.core.sanitize import counted, display
from dambench.report import format_of, render, wording, write
from dambench.report.arrangement import check
from dambench.report.document import DocumentQuery, arrange, read_board
from dambench.report.quantities import QUANTITIES
from dambench.report.sections import SECTIONS
from dambench.store import filters, grouping
from dambench.store.runs import default_path
from dambench.tui import hints
from dambench.tui.arrange_actions import CHOOSE_KEYS, ask_for_axes, ask_for_names
from dambench.tui.feed import Question
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.arranging import names_of, orders
from dambench.tui.models.comparison import CHOICES, axes_label
from dambench.tui.models.document import (
    Document,
    DocumentReader,
    preview_lines,
    remark_lines,
    section_lines,
    sections_in_words,
)
from dambench.tui.queue_actions import queue_what_is_missing
from dambench.tui.run_actions import in_background
from dambench.tui.terminal.ascii_filter import spelled
from dambench.tui.terminal.clipboard import copy
from dambench.tui.widgets.jump import Target
from dambench.tui.widgets.lines import Lines
from dambench.tui.widgets.notices import Notice
from dambench.tui.widgets.pick import Ask, Pick
from dambench.tui.widgets.sure import Several, Sure

NOT_KEPT: Mapping[str, Any] = {"filter": "", "hide": (), "group": ()}
"""What is not kept of a request: what it hides would be forgotten, and its groups are of the runs there were."""


class ReportScreen(MainScreen):
    """The document that `dambench report` writes."""

    NAME: ClassVar[str] = "Report"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "write", "Write", tooltip="Write it to a file"),
        Binding("f", "format", "Format", tooltip="Markdown, LaTeX, CSV, HTML or JSON"),
        Binding("s", "sections", "Sections", tooltip="Choose its parts"),
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Only some runs"),
        Binding("exclamation_mark", "missing", "Missing", key_display="!", tooltip="All that is missing or mixed"),
        Binding("t", "short", "Short", show=False, tooltip="The tables of accuracy alone, or all of it"),
        Binding(
            "v", "axes('rows')", "Axes", key_display="v V", show=False, tooltip="What rows, and columns, stand for"
        ),
        Binding("V", "axes('columns')", "What columns stand for", show=False),
        Binding("m", "metric", "Values", show=False, tooltip="Which metric the tables are of"),
        Binding("M", "shows", "Cells", show=False, tooltip="What cells show: mean, rank, published, gap, energy, …"),
        *CHOOSE_KEYS,
        Binding("o", "order", "Order", show=False, tooltip="The order of rows: as they come, by name, the best first"),
        Binding("T", "group", "Groups", show=False, tooltip="Runs in groups by any setting, with the mean of each"),
        Binding("Q", "fill", "Fill", show=False, tooltip="Queue what is missing: baselines, and seeds others have"),
        Binding("Y", "copy_document", "Copy the document", show=False),
        Binding("E", "pager", "In $PAGER", show=False),
        Binding("j,down", "scroll(1)", "Down", show=False),
        Binding("k,up", "scroll(-1)", "Up", show=False),
        Binding("ctrl+d,pagedown,space", "scroll(16)", "Page down", show=False),
        Binding("ctrl+u,pageup", "scroll(-16)", "Page up", show=False),
        Binding("g,home", "scroll(-1000000)", "Beginning", show=False),
        Binding("G,end", "scroll(1000000)", "End", show=False),
        Binding("l,right", "across(8)", "Right", show=False),
        Binding("h,left", "across(-8)", "Left", show=False),
        Binding("escape", "back", "Back", show=False, tooltip="Clear the filter"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = DocumentReader()
        self._document: Document | None = None
        self._query = DocumentQuery()
        self._top = 0
        """The first line of the preview."""
        self._across = 0
        self._laid_out: tuple[object, list[Text]] = None, []
        """The lines of the preview, and of what they are."""
        self._remarks: tuple[object, list[Text]] = None, []

    def content(self) -> ComposeResult:
        yield Static(id="heading")
        yield Static(id="empty")
        with Horizontal(id="panes"):
            with Vertical(id="contents"):
                yield Lines(id="sections")
                yield Lines(id="remarks")
            yield Lines(id="preview")
        yield Lines(id="below")
        yield Static(id="same")

    def on_mount(self) -> None:
        self.set_class(self.console_app.options.ascii, "-ascii")
        self._query = _kept(self.console_app.settings.get("report", {}))
        for name in ("#preview", "#sections", "#remarks", "#below"):
            self.query_one(name, Lines).painter = self._paint
        self._heading()

    # What is asked, and drawn.

    def question(self) -> Question:
        return partial(self._reader.read, query=self._query)

    def forget(self) -> None:
        super().forget()
        self._reader, self._document = DocumentReader(), None
        self._empty("")

    def show(self, answer: Document | None) -> bool:
        if answer is None:
            self._document = None
            self._empty(f"There is no database {display(str(self.console_app.path))!r} yet.\n\n{wording.FIRST}")
            return True
        if answer.query != self._query:
            return False  # something else was asked for since
        if answer is self._document:
            return True
        self._document = answer
        if answer.problem:
            hidden = f"{hints.hint('report.rows', 'R'):<5} choose rows, {hints.hint('report.columns', 'C')} columns\n"
            clears = f"{hints.hint('report.back', 'esc'):<5} clear the filter\n" if self._query.filter else ""
            other = f"{hints.hint('report.values', 'm'):<5} show other values\n"
            ways = clears + (other if self._query.metric != "accuracy" else "") + (hidden if self._query.hide else "")
            self._empty(f"{display(answer.problem, 400)}\n\n{ways}")
        else:
            self.remove_class("-empty")
            self._paint()
        return True

    def _empty(self, text: str) -> None:
        self.query_one("#empty", Static).update(Text(text))
        self.add_class("-empty")
        self._heading()

    def _paint(self) -> None:
        self._heading()
        found = self._document
        if found is None or found.problem:
            return
        pane = self.query_one("#preview", Lines)
        width, height = pane.size
        if not width:
            return
        lines = self._preview(found, width)
        self._top = max(0, min(self._top, len(lines) - height))
        last = min(len(lines), self._top + height)
        left = f", from column {self._across + 1}" if self._across else ""
        pane.entitle("Preview", f"line {self._top + 1}-{last} of {len(lines)}{left}")
        pane.show(lines[self._top : last])
        self._paint_sections(found)
        self._paint_remarks(found)

    def _preview(self, found: Document, width: int) -> list[Text]:
        known = found, width, self._across
        if self._laid_out[0] != known:
            self._laid_out = known, preview_lines(found, width, self._across)
        return self._laid_out[1]

    def _paint_sections(self, found: Document) -> None:
        pane, axes = self.query_one("#sections", Lines), found.meant
        pane.entitle("Contents")
        facts = [
            f"format   {axes.format}",
            f"rows     {axes_label(axes.rows)}",
            f"columns  {axes_label(axes.columns)}",
            f"values   {display(axes.metric, 60)}",
            *([f"cells    {', '.join(axes.shows)}"] if axes.shows != DocumentQuery().shows else []),
            *([f"order    {display(axes.order, 80)}"] if axes.order else []),
            *([f"first    {display(', '.join(axes.first), 200)}"] if axes.first else []),
            *([f"hidden   {display(', '.join(axes.hide), 200)}"] if axes.hide else []),
            *([f"groups   {display(', '.join(axes.group), 200)}"] if axes.group else []),
            f"filter   {display(axes.filter, 200) or 'all runs'}",
            f"runs     {found.finished}",
        ]
        pane.show([*section_lines(axes), Text(), *(Text(self._spelled(fact), no_wrap=True) for fact in facts)])

    def _paint_remarks(self, found: Document) -> None:
        wide, below = self.query_one("#remarks", Lines), self.query_one("#below", Lines)
        pane = wide if wide.size.width else below
        known = found, pane.size.width
        if self._remarks[0] != known:
            self._remarks = known, remark_lines(found, pane.size.width)
        lines, height = self._remarks[1], max(1, pane.size.height)
        more = len(lines) - height
        key = hints.hint("report.missing", "!")
        count = f" ({len(found.remarks)})" if found.remarks else ""
        if pane is wide:
            wide.entitle(f"Missing or mixed{count}", f"{counted(more, 'line')} more: {key}" if more > 0 else "")
            wide.show(lines[:height])
            return
        shown = lines[:height]
        if more > 0:
            end = Text(f" {'...' if self.console_app.options.ascii else '…'} {counted(more, 'line')} more: {key}")
            last = shown[-1].copy()
            last.truncate(max(0, below.size.width - end.cell_len))
            shown[-1] = last + end
        below.show(shown)

    def _heading(self) -> None:
        query, found = self._meant, self._document
        parts = [counted(found.finished, "run")] if found is not None and found.text else []
        parts += [f"{len(found.remarks)} missing or mixed"] if found is not None and found.remarks else []
        parts += [f"filter {display(query.filter, 80)}"] if query.filter else []
        parts += [query.format, sections_in_words(query)]
        parts += [f"{axes_label(query.rows)} by {axes_label(query.columns)}"]
        parts += [f"{len(query.hide)} hidden"] if query.hide else []
        line = Text(self._spelled(" " + "   ".join(parts)), no_wrap=True)
        line.truncate(max(10, self.size.width - 1), overflow="ellipsis")
        self.query_one("#heading", Static).update(line)
        self.query_one("#same", Static).update(Text(f"same as: {display(self.command(), 2000)}"))

    def _spelled(self, text: str) -> str:
        return spelled(text) if self.console_app.options.ascii else text

    def command(self) -> str:
        """The command that writes this document."""
        path = self.console_app.path
        return self._meant.command(self._file_name(), None if path == default_path() else path)

    @property
    def _meant(self) -> DocumentQuery:
        """The request, without names of rows and columns that there are none of."""
        found = self._document
        return found.meant if found is not None and found.query == self._query else self._query

    def _file_name(self) -> str:
        """The file that it was written to last, with a suffix of its format."""
        name = Path(str(self.console_app.settings.get("report.file", "report.md")))
        suffixes = registry.load("formats", self._query.format).SUFFIXES
        return str(name if name.suffix.lower() in suffixes or not suffixes else name.with_suffix(suffixes[0]))

    def idle_actions(self) -> set[str]:
        found, query = self._document, self._query
        idle = set() if query.filter else {"back"}
        idle |= set() if found and found.remarks else {"missing"}
        idle |= set() if query.short or registry.load("formats", query.format).SHORT else {"short"}
        idle |= set() if found is not None else {"fill"}
        if found is None or found.board is None:
            idle |= {"choose('rows')", "choose('columns')", "order", "group"}
        return idle if found and found.text else idle | {"write", "copy_document", "pager"}

    # Keys.

    def _change(self, **fields: Any) -> None:
        """Ask for another document."""
        self._query = replace(self._query, **fields)
        self._top = self._across = 0
        self.console_app.settings.set("report", msgspec.to_builtins(self._query) | NOT_KEPT)
        self._heading()
        self.ask()

    def scroll_lines(self, lines: int) -> None:
        self.action_scroll(lines)

    def action_scroll(self, lines: int) -> None:
        height = self.query_one("#preview", Lines).size.height
        self._top = max(0, self._top + (lines if abs(lines) != 16 else lines // 16 * max(1, height - 1)))
        self._paint()

    def jump_targets(self) -> Iterator[Target]:
        """The headings of the document that are on the screen: one goes to the top."""
        area, lines = self.query_one("#preview").content_region, self._laid_out[1]
        for number, line in enumerate(lines[self._top : self._top + area.height]):
            if line.plain.startswith(("#", "\\section", "\\subsection", "\\caption")):
                yield Target(area.offset + Offset(0, number), partial(self._show_from, self._top + number))

    def _show_from(self, line: int) -> None:
        self._top = line
        self._paint()

    def action_across(self, columns: int) -> None:
        self._across = max(0, self._across + columns)
        self._paint()

    def action_format(self) -> None:
        """Choose the format."""

        def chosen(name: str | None) -> None:
            if name is None:
                return
            plugin = registry.load("formats", name)
            if self._query.short and not plugin.SHORT:
                self.console_app.say(f"{name} always has all numbers: it is not short any more.")
            several = len(self._query.sections) > 1 and plugin.SINGLE
            if several:
                self.console_app.say(
                    f"{name} is one table: the usual one; {hints.hint('report.sections', 's')} chooses another."
                )
            sections = () if several else self._query.sections
            group = self._query.group if "groups" in sections else ()
            self._change(format=name, short=self._query.short and plugin.SHORT, sections=sections, group=group)

        names = [(name, name) for name in registry.load_all("formats").usable]
        self.app.push_screen(Pick("Format", names, self._query.format), chosen)

    def action_sections(self) -> None:
        """Choose the parts of the report."""
        about = {name: f"{name}: {section.about}" for name, section in SECTIONS.items()}
        if registry.load("formats", self._query.format).SINGLE:
            one = [(text, name) for name, text in about.items()]
            now = self._query.sections[0] if self._query.sections else "accuracy"
            self.app.push_screen(Pick("The one table", one, now), self._take_section)
            return
        on = self._query.sections or tuple(name for name, section in SECTIONS.items() if section.usual)
        options = [(text, name, name in on) for name, text in about.items()]
        self.app.push_screen(Several("Sections", options), self._take_sections)

    def _take_section(self, name: str | None) -> None:
        if name is not None:
            self._change(sections=(name,), group=self._query.group if name == "groups" else ())

    def _take_sections(self, names: list[str] | None) -> None:
        if names is None:
            return
        if not names:
            self.console_app.say("A report needs a section.", "warning")
            return
        usual = [name for name, section in SECTIONS.items() if section.usual]
        group = self._query.group if "groups" in names else ()
        self._change(sections=() if names == usual else tuple(names), short=False, group=group)

    def action_short(self) -> None:
        if not self._query.short and not registry.load("formats", self._query.format).SHORT:
            self.console_app.say(f"{self._query.format} always has all numbers: markdown can be short.", "warning")
            return
        self._change(short=not self._query.short, sections=(), group=())

    def action_filter(self) -> None:
        """Ask which runs are meant."""

        def typed(text: str | None) -> None:
            if text is not None:
                filters.read(text, to_compare=True)
                self._change(filter=text.strip())

        about = "As in Runs: method:dm|datadam ipc<=10 -tag:old"
        self.app.push_screen(Ask("Only these runs", self._query.filter, about), typed)

    def action_back(self) -> None:
        if self._query.filter:
            self._change(filter="")

    def action_axes(self, which: str) -> None:
        """Choose what rows, or columns, stand for."""
        ask_for_axes(self, self._query.rows, self._query.columns, which, self._change)

    def action_metric(self) -> None:
        """Choose what cells show."""

        def chosen(name: str | None) -> None:
            if name is not None:
                self._change(metric=name)

        described = self._document.metrics if self._document else ()
        options = [("accuracy", "accuracy")]
        options += [
            (f"{wording.metric_label(metric)}: {metric.description}", metric.full_name)
            for metric in described
            if metric.full_name != "accuracy.accuracy"
        ]
        self.app.push_screen(Pick("What cells show", options, self._query.metric), chosen)

    def action_shows(self) -> None:
        """Choose what cells show."""
        now = self._query.shows
        names = [*now, *(name for name in QUANTITIES if name not in now)]
        options = [(self._spelled(f"{name:<11} {QUANTITIES[name].about}"), name, name in now) for name in names]

        def chosen(shows: list[str] | None) -> None:
            if shows is not None:
                self._change(shows=tuple(shows) or DocumentQuery().shows)

        self.app.push_screen(Several("What cells show", options, movable=True), chosen)

    def action_choose(self, which: str) -> None:
        """Choose which rows, or columns, are shown, and in which order."""
        ask_for_names(self, which, self._names(which), self._query.arrangement, self._change)

    def _names(self, which: str) -> list[str]:
        """The names of all rows, or columns."""
        found, query = self._document, self._query
        if found is None or found.board is None:
            return []
        return names_of(found.board, query.rows, query.columns, query.arrangement, which)

    def action_order(self) -> None:
        """Choose the order of rows."""

        def chosen(order: str | None) -> None:
            if order is not None:
                self._change(order=order)

        options = [(self._spelled(label), order) for label, order in orders(self._names("columns"))]
        self.app.push_screen(Pick("The order of rows", options, self._query.order), chosen)

    def action_group(self) -> None:
        """Choose the settings by which runs are grouped, in a section of the report."""
        found, query = self._document, self._query
        if found is None or found.board is None or not found.board.scores:
            self.console_app.say("There are no runs with scores to group.")
            return
        runs = list({score.run for score in found.board.scores})
        there = grouping.keys(self.read_now(lambda store: grouping.values(store, runs)))
        now = query.group if "groups" in query.sections else ()
        usual = now or grouping.USUAL
        names = [*usual, *(name for name in there if name not in usual)]

        def chosen(keys: list[str] | None) -> None:
            if keys is None:
                return
            sections = [name for name in query.sections if name != "groups"]
            if not keys:
                self._change(sections=tuple(sections), group=())
                return
            if registry.load("formats", query.format).SINGLE:
                sections = []
            elif not sections:
                sections = [name for name, section in SECTIONS.items() if section.usual]
            self._change(sections=(*sections, "groups"), group=tuple(keys), short=False)

        options = [(name, name, name in usual) for name in names]
        self.app.push_screen(Several("Group runs by", options, movable=True), chosen)

    def action_missing(self) -> None:
        """All that is missing or mixed, each with the command that helps."""
        found = self._document
        if found is None or not found.remarks:
            self.console_app.say("Nothing is missing or mixed." if found and found.text else "There is no report yet.")
            return
        text = Text()
        for remark in found.remarks:
            text.append(f"{display(remark.text, 600)}\n")
            text.append(f"  {display(remark.command, 600)}\n" if remark.command else "", "dim")
        text.append(f"\n{hints.hint('report.fill', 'Q')} queues what can be queued.")
        self.app.push_screen(Notice("Missing or mixed", text))

    def action_fill(self) -> None:
        """Queue what is missing, once that was said."""
        queue_what_is_missing(self, self._query.rows, self._query.columns, self._query.filter)

    def action_write(self) -> None:
        """Ask for a file, and write the document to it."""
        if self.console_app.options.served:
            copies = f"{hints.hint('report.copy-the-document', 'Y')} copies the document"
            self.console_app.say(f"Files of this machine are not written from a browser: {copies}.", "warning")
            return
        if self._document is None or not self._document.text:
            self.console_app.say("There is no report to write yet.")
            return
        about = "The suffix decides the format: .md .tex .csv .html .json.\nAny other is written as it is shown."
        self.app.push_screen(Ask("Write the report", self._file_name(), about), self._write_to)

    def _write_to(self, name: str | None) -> None:
        if not name:
            return
        path, query = files.user_path(name), self._meant
        try:
            format_ = format_of(None, path, short=query.short)
        except BadInput:
            format_ = format_of(query.format, path, short=query.short)
        if len(query.sections) > 1 and registry.load("formats", format_).SINGLE:
            key = hints.hint("report.sections", "s")
            raise BadInput(f"{format_} is one table: {key} chooses which, of {', '.join(query.sections)}.")
        meant = replace(query, format=format_)

        def work() -> str:
            with self.console_app.database() as store:
                board = read_board(store, meant)
            write(path, render(format_, arrange(board, meant), meant.rows, meant.columns, short=meant.short))
            return f"Written: {path.absolute()}"

        def go(yes: bool | None) -> None:
            if yes:
                self.console_app.settings.set("report.file", name)
                if meant != query:
                    self._change(format=format_)
                self._heading()
                in_background(self, work)

        if path.is_file():
            self.app.push_screen(Sure("Write the report", f"Write over {display(str(path), 200)}?", "write"), go)
        else:
            go(True)

    def action_copy_document(self) -> None:
        if self._document is None or not self._document.text:
            self.console_app.say("There is no report to copy yet.")
            return
        path = copy(self.app, self._document.text)
        self.console_app.say(
            "The document is copied, if the terminal allows it" + (f"; also in {path}" if path else "")
        )

    def action_pager(self) -> None:
        """The document in $PAGER."""
        if self.console_app.options.served:
            self.console_app.say("There is no $PAGER in a browser.", "warning")
            return
        if self._document is None or not self._document.text:
            self.console_app.say("There is no report yet.")
            return
        pager = shlex.split(os.environ.get("PAGER") or "less")
        try:
            with self.app.suspend():
                subprocess.run(pager, input=self._document.text.encode(), check=False)
        except (OSError, SuspendNotSupported) as error:
            self.console_app.say(f"{' '.join(pager)} cannot be opened: {error}", "warning")

    def to_copy(self) -> str:
        """The equivalent command."""
        return self.command()


def _kept(values: object) -> DocumentQuery:
    """The request that was made last, if it is one."""
    try:
        query = msgspec.convert(values, DocumentQuery)
        plugin = registry.load("formats", query.format)
    except (msgspec.ValidationError, BadInput):
        return DocumentQuery()
    axes = {*query.rows, *query.columns}
    fits = query.rows in CHOICES and query.columns in CHOICES and len(axes) == len(query.rows) + len(query.columns)
    fits = fits and set(query.sections) <= set(SECTIONS) and not (query.short and (query.sections or not plugin.SHORT))
    fits = fits and set(query.shows) <= set(QUANTITIES)
    try:
        check(query.arrangement)
    except BadInput:
        fits = False
    return replace(query, **NOT_KEPT) if fits and not (len(query.sections) > 1 and plugin.SINGLE) else DocumentQuery()
