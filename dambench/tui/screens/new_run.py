"""New run: a form, what it comes to, and the command that does the same.

Nothing is judged here. Each time a key was pressed, the command that is shown is given to a child that has torch, and
what it says is what `dambench run` would say.
"""

import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult, ScreenStackError
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input, Select, Static

from dambench.core.config import Section
from dambench.core.errors import BadInput
from dambench.core.protocol import USUAL
from dambench.core.sanitize import counted, display
from dambench.report.wording import protocol_in_words
from dambench.runner import monitor, processes
from dambench.store import runs as stored
from dambench.store.runs import Store
from dambench.tui import hints, keys
from dambench.tui.checker import Answer, Checker, Measurement
from dambench.tui.console import Console
from dambench.tui.main_screen import LOW
from dambench.tui.models import catalogue, fields, queueing, request
from dambench.tui.models.catalogue import Catalogue
from dambench.tui.models.preflight import (
    Outlook,
    brief,
    field_notes,
    gpu_lines,
    no_gpu_line,
    preflight_lines,
    read_outlook,
    sharing_line,
)
from dambench.tui.models.request import Form
from dambench.tui.resilient import Resilient
from dambench.tui.terminal.ascii_filter import spelled
from dambench.tui.widgets.footer import KeysLine
from dambench.tui.widgets.form import ChoiceField, FormRow, TextField, field_id

STILL = 0.5
"""Seconds after the last key until the request is checked."""

FIRST: Form = {"method": "dm", "dataset": "digits", "ipc": "1", "seeds": "0-2"}
"""Done in seconds on any machine, with no download."""


@dataclass
class RequestChecked(Message):
    """A child answered what a request would be, and the database what it would take."""

    arguments: list[str]
    answer: Answer
    outlook: Outlook


@dataclass
class CatalogueLoaded(Message):
    """The catalogue is there."""

    catalogue: Catalogue


@dataclass
class GpusRead(Message):
    """The GPUs were read."""

    lines: list[str]
    devices: int


@dataclass
class CostMeasured(Message):
    """A few steps were measured."""

    arguments: list[str]
    answer: Answer


@dataclass
class StartProgress(Message):
    """A run that is starting printed a line."""

    line: str


@dataclass
class RunStarted(Message):
    """A run has begun, or has not."""

    run: str
    error: str


class NewRunScreen(Resilient, Screen[None]):
    """Ask for a run."""

    BINDINGS: ClassVar[list[BindingType]] = keys.named(
        "form",
        [
            Binding("ctrl+r", "start", "Start"),
            Binding("ctrl+n", "queue", "Queue"),
            Binding("ctrl+t", "measure", "Measure"),
            Binding("ctrl+o", "edit", "TOML"),
            Binding("ctrl+y", "app.copy", "Copy"),
            Binding("f5", "refresh", "Look again", show=False),
            Binding("f1", "app.help", "Help", show=False),
            Binding("ctrl+l", "clear", "Clear the form", show=False),
            Binding("escape", "back", "Back"),
        ],
    )

    def __init__(self) -> None:
        super().__init__()
        self.form: Form = dict(FIRST)
        self.catalogue = catalogue.kept() or catalogue.names()
        self.answer: Answer = {}
        self.outlook = Outlook()
        self._origin = ""
        # Not looked for when they are drawn: an answer may come before they are there, or when they are gone.
        self._lines = {name: Static(id=name) for name in ("title", "protocol", "before", "hint", "command", "message")}
        self._checked: list[str] | None = None
        """The request that the answer is about."""
        self._measured: tuple[list[str], Answer] | None = None
        self._measuring: Measurement | None = None
        self._cards: list[str] = ["asking …"]
        self._devices = 0
        self._checker: Checker | None = None
        self._still: Timer | None = None
        self._starting = False
        self._warned: list[str] | None = None
        """The request whose likes were pointed out."""

    @property
    def console_app(self) -> Console:
        return cast(Console, self.app)

    def compose(self) -> ComposeResult:
        yield self._lines["title"]
        with Container(id="panes"):
            with VerticalScroll(id="form", can_focus=False) as form:
                form.border_title = "What"
                yield from self._rows("main")
                with Container(id="options"):
                    yield from self._options()
                yield Static(Text("More"), classes="section")
                yield from self._rows("more")
            yield self._lines["protocol"]
            yield self._lines["before"]
        yield self._lines["hint"]
        yield self._lines["command"]
        yield self._lines["message"]
        yield KeysLine(show_command_palette=False)

    # The form.

    def _options(self) -> ComposeResult:
        """The rows of the method's own options, and the dataset's."""
        method = self.form.get("method", "")
        options = [f"method.{name}" for name in self.catalogue.options("method", method)]
        recipes = self.catalogue.recipes(method)
        if options or len(recipes) > 1:
            yield Static(id="source", classes="section")
        if len(recipes) > 1:
            yield self._row("recipe")
        given = [name for name in self.form if name.startswith("method.") and self.form[name]]
        yield from map(self._row, dict.fromkeys([*options, *given]))
        options = [f"dataset.{name}" for name in self.catalogue.options("dataset", self.form.get("dataset", ""))]
        given = [name for name in self.form if name.startswith("dataset.") and self.form[name]]
        if options or given:
            yield Static(Text(display(self.form.get("dataset", ""))), classes="section")
        yield from map(self._row, dict.fromkeys([*options, *given]))

    def _rows(self, section: Section) -> Iterable[FormRow]:
        """The rows of the options of a run in one part of the form."""
        for name, option in request.fields().items():
            if option.section == section:
                yield self._row(name)
                if name == "protocol":
                    yield self._row(request.CHANGES)

    def _row(self, name: str) -> FormRow:
        value = self.form.get(name, "")
        choices = self._choices(name)
        option = request.fields().get(name)
        label = option.title if option else name.rpartition(".")[2]
        placeholder = option.default if option and option.default.isdecimal() else ""
        if name == request.CHANGES:
            label, placeholder = "  changed", "as it is"
        return FormRow(
            name, label, ChoiceField(name, choices, value) if choices else TextField(name, value, placeholder)
        )

    def _choices(self, name: str) -> list[tuple[str, str]]:
        return fields.choices(name, self.form, self.catalogue, self._devices)

    async def _rebuild(self) -> None:
        """Draw the options anew: there are others now."""
        options = self.query_one("#options")
        with suppress(ScreenStackError), self.app.batch_update():  # (it may end meanwhile)
            await options.remove_children()
            await options.mount_all(list(self._options()))
            self._offer_datasets()
            self._notes()
        if self.focused is None:
            self.query_one("FormRow ChoiceField", ChoiceField).focus()

    def _offer_datasets(self) -> None:
        """Offer the datasets anew: more may be here now."""
        for choice in self.query("#field-dataset ChoiceField").results(ChoiceField):
            choice.offer(self._choices("dataset"), self.form.get("dataset", ""))

    def fill(self, form: Form, origin: str = "") -> None:
        """Begin with these values.

        Args:
            origin: the run they are from.
        """
        self.form, self._origin = dict(form), origin
        if not self.is_mounted:
            return
        for row in self.query(FormRow):
            value = self.form.get(row.field_name, "")
            with self.prevent(Input.Changed, Select.Changed):
                if isinstance(row.entry, ChoiceField):
                    row.entry.offer(self._choices(row.field_name), value)
                elif isinstance(row.entry, TextField):
                    row.entry.value = value
        self._changed(rebuild=True, at_once=True)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._set(getattr(event.input, "field_name", ""), event.value, at_once=False)

    def on_select_changed(self, event: Select.Changed) -> None:
        self._set(getattr(event.select, "field_name", ""), str(event.value), at_once=True)

    def _set(self, name: str, value: str, at_once: bool) -> None:
        if not name or self.form.get(name, "") == value:
            return
        self.form[name] = value
        rebuild = name in ("method", "dataset")
        if rebuild:  # options that were meant for the other
            self.form = {key: text for key, text in self.form.items() if not key.startswith(f"{name}.")}
        if name == "method":
            self.form.pop("recipe", None)
        if rebuild:  # what is known is of another thing
            self.answer, self.outlook = {}, Outlook(sharing=self.outlook.sharing)
        for row in self.query(f"#{field_id(name)}").results(FormRow):
            row.note("")
        self._changed(rebuild, at_once)

    def _changed(self, rebuild: bool = False, at_once: bool = False) -> None:
        if rebuild:
            self.run_worker(self._rebuild(), exclusive=True, group="rebuild")
        self._head()
        self._before()
        self._message("checking …")
        if self._still is not None:
            self._still.stop()
        if at_once:
            self._check()
        else:
            self._still = self.set_timer(STILL, self._check)

    def action_move(self, by: int) -> None:
        """To the field above or below."""
        if by > 0:
            self.focus_next("FormRow TextField, FormRow ChoiceField")
        else:
            self.focus_previous("FormRow TextField, FormRow ChoiceField")

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        self._hint()

    def action_clear(self) -> None:
        self.fill(FIRST)

    # What is asked of others.

    def on_screen_resume(self) -> None:
        if self._checker is None:
            self._checker = Checker(self._on_answer)
        if not self.query("FormRow TextField:focus, FormRow ChoiceField:focus"):
            self.query_one("FormRow ChoiceField", ChoiceField).focus()
        self._changed(at_once=True)
        if self.catalogue.trouble:
            threading.Thread(target=self._learn, name="catalogue", daemon=True).start()
        self.action_refresh()

    def on_screen_suspend(self) -> None:
        if isinstance(self.app.screen_stack[-1], NewRunScreen) or self in self.app.screen_stack:
            return  # something stands over it: help, the palette
        self._end_children()

    def on_unmount(self) -> None:
        self._end_children()

    def _end_children(self) -> None:
        if self._checker is not None:
            self._checker.close()
            self._checker = None
        if self._measuring is not None:
            self._measuring.stop()
            self._measuring = None

    def ask_again(self) -> None:
        """Another database is there now: what was said of the one before does not hold."""
        self.outlook, self._checked = Outlook(), None
        self._changed(at_once=True)

    def action_refresh(self) -> None:
        """Look at the GPUs again."""
        threading.Thread(target=self._read_gpus, name="gpu", daemon=True).start()

    def _learn(self) -> None:
        self.post_message(CatalogueLoaded(catalogue.load()))

    def on_catalogue_loaded(self, message: CatalogueLoaded) -> None:
        self.catalogue = message.catalogue
        self.run_worker(self._rebuild(), exclusive=True, group="rebuild")

    def _read_gpus(self) -> None:
        cards, trouble = monitor.look()
        runs = {}
        with suppress(Exception), closing(Store.open(self.console_app.path)) as store:
            alive = [row for row in store.unfinished() if row.state == "running"]
            runs = {row.pid: row.id for row in alive if processes.is_here(row)}
        self.post_message(GpusRead(gpu_lines(cards, runs) if cards else [no_gpu_line(trouble)], len(cards)))

    def on_gpus_read(self, message: GpusRead) -> None:
        self._cards = message.lines
        if message.devices != self._devices:
            self._devices = message.devices
            for choice in self.query("#field-device ChoiceField").results(ChoiceField):
                choice.offer(self._choices("device"), self.form.get("device", ""))
        self._before()

    def _check(self) -> None:
        if self._checker is not None:
            self._checker.ask([*request.arguments(self.form), "--db", str(self.console_app.path)])

    def _on_answer(self, arguments: list[str], answer: Answer) -> None:
        """In the checker's thread."""
        outlook = Outlook(sharing={})
        if stored.exists(self.console_app.path):
            try:
                outlook = read_outlook(self.console_app.path, answer)
            except Exception as error:  # the database is not what this is about
                outlook = Outlook(trouble=str(error))
        self.post_message(RequestChecked(arguments, answer, outlook))

    def on_request_checked(self, message: RequestChecked) -> None:
        if message.arguments != self._arguments():
            return  # something was typed since
        self.answer, self.outlook, self._checked = message.answer, message.outlook, message.arguments
        self._offer_datasets()
        self._notes()
        error = self.answer.get("error", "")
        if error:
            self._message(f"! {error}")
        elif self.answer.get("first"):
            self._message(f"The rest is checked when the data are there. {self.answer['first']}")
        else:
            self._message(
                " ".join(self.answer["notes"])
                or f"Nothing is wrong with it: {hints.hint('form.start', 'ctrl+r')} starts."
            )

    @property
    def checked(self) -> bool:
        """The answer that is shown is about the request as it is now."""
        return self._checked == self._arguments()

    def _arguments(self) -> list[str]:
        return [*request.arguments(self.form), "--db", str(self.console_app.path)]

    def action_measure(self) -> None:
        """Run a few iterations to see what all would take."""
        if self.console_app.refuses():
            return
        if self._measuring is not None:
            self._measuring.stop()
        arguments = self._arguments()
        self._measured = None

        def on_answer(answer: Answer) -> None:
            self.post_message(CostMeasured(arguments, answer))

        self._measuring = Measurement(arguments, on_answer)
        self._before()

    def on_cost_measured(self, message: CostMeasured) -> None:
        self._measuring = None
        self._measured = message.arguments, message.answer
        self._before()

    # Starting.

    def action_start(self) -> None:
        """Start the run as a process of its own."""
        if self._starting or self.console_app.refuses():
            return
        if stored.exists(self.console_app.path):  # otherwise it is made
            self.console_app.check_file()
        arguments = self._arguments()
        if self._checked == arguments and "error" in self.answer:
            self.console_app.say(self.answer["error"], "error")
            return
        if self._checked == arguments and self.outlook.same and self._warned != arguments:
            self._warned = arguments
            which = ", ".join(similar.run for similar in self.outlook.same)
            start = f"{hints.hint('form.start', 'ctrl+r')} again starts it."
            self._message(f"{which} asked for the very same; once more adds no evidence. {start}")
            return
        self._starting = True
        if self._measuring is not None:
            self._measuring.stop()
            self._measuring = None
        self._message("starting …")
        again = ["--again"] if self._warned == arguments else []
        threading.Thread(target=self._start, args=(["run", *arguments, *again, "--headless"],), name="start").start()

    def action_queue(self) -> None:
        """Have it wait in the queue for its turn."""
        if self.console_app.refuses():
            return
        arguments = self._arguments()
        if self._checked == arguments and "error" in self.answer:
            self.console_app.say(self.answer["error"], "error")
            return
        path = self.console_app.path
        if stored.exists(path):  # otherwise it is made
            self.console_app.check_file()
        with closing(Store.open(path, write=True)) as store:
            answer = self.answer if self._checked == arguments else None
            added = queueing.queue(store, queueing.wishes_of_form(self.form, answer), "")
        self._end_children()
        there = f"; {counted(len(added.there), 'run')} queued already" if added.there else ""
        self.console_app.say(f"Queued: {counted(len(added.new), 'run')}{there}.")
        self.console_app.go("queue")

    def _start(self, arguments: list[str]) -> None:
        last = ""

        def say(line: str) -> None:
            nonlocal last
            last = line
            self.post_message(StartProgress(line))

        try:
            run, code = processes.start(arguments, say)
            error = "" if run else last.removeprefix("dambench: ") or f"It ended with {code} before it began."
        except (BadInput, OSError) as failed:
            run, error = "", str(failed)
        self.post_message(RunStarted(run, error))

    def on_start_progress(self, message: StartProgress) -> None:
        self._message(message.line)

    def on_run_started(self, message: RunStarted) -> None:
        self._starting = False
        if message.error:
            self._message(f"! {message.error}")
            return
        self._message("")
        if self.app.screen is self:
            self.console_app.open_run(message.run)
        else:
            self.console_app.say(f"The run {message.run} has begun.")

    def action_back(self) -> None:
        """Leave; the form is kept."""
        self.app.pop_screen()
        self._end_children()

    def action_edit(self) -> None:
        """The form as TOML, in $VISUAL or $EDITOR."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.toml"
            path.write_text(request.to_toml(self.form), encoding="utf-8")
            try:
                with self.app.suspend():
                    subprocess.run([*shlex.split(editor), str(path)], check=True)
                form = request.from_toml(path.read_text(encoding="utf-8"))
            except Exception as error:  # no such editor, no terminal to give it, or what was written is not TOML
                self._message(f"! The form stays as it was: {error}")
                return
        self.fill(form, self._origin)

    def to_copy(self) -> str:
        return request.command(self.form)

    # Drawing.

    def _message(self, text: str) -> None:
        self._lines["message"].update(Text(display(text, 400)))

    def _head(self) -> None:
        title = Text(" New run", "bold")
        if self._origin:
            title.append(f"   from {self._origin}", "")
        self._lines["title"].update(title)
        command = Text("same as  ", "bold")
        command.append(display(request.command(self.form), 1000), "")
        self._lines["command"].update(command)
        self.call_after_refresh(self._see_focused)

    def _hint(self) -> None:
        """About the field in front."""
        name = getattr(self.focused, "field_name", "")
        text = fields.hint(name, self.form, self.catalogue, self.answer)
        text += " ← → choose, enter lists." if isinstance(self.focused, ChoiceField) and "." not in name else ""
        text = display(text, 400)
        self._lines["hint"].update(Text(spelled(text) if self.console_app.options.ascii else text))

    def _notes(self) -> None:
        """Beside each field, what it comes to."""
        error = self.answer.get("error", "")
        wrong = request.field_of_error(self.answer, self.form)
        notes = field_notes(self.answer, self.catalogue)
        for row in self.query(FormRow):
            row.mark(row.field_name == wrong)
            if row.field_name in notes or not error:
                row.note(notes.get(row.field_name, ""))
        for source in self.query("#source").results(Static):
            method = self.catalogue.method(self.form.get("method", ""))
            about = f"{method.name}  {method.paper}  "
            text = Text(display(about), "bold")
            text.append(display(fields.recipe_source(self.answer), 300), "none")
            source.update(text)
        self._hint()
        self._before()
        self._protocol()

    def _protocol(self) -> None:
        pane = self._lines["protocol"]
        protocol = self.catalogue.protocol(request.named_protocol(self.form) or USUAL)
        if protocol is None:
            pane.border_title = Content("Protocol")
            pane.update("")
            return
        pane.border_title = Content(protocol.label)
        networks = ", ".join(self.answer.get("config", {}).get("evaluate_on", []))
        text = Text(display(f"{networks}\n" if networks else "", 300))
        text.append(f"\n{display(protocol_in_words(protocol), 900)}\n\n")
        if self.outlook.sharing is not None:
            text.append(sharing_line(self.outlook.sharing.get(protocol.sha256, 0)))
        pane.update(text)

    def _before(self) -> None:
        pane = self._lines["before"]
        pane.border_title = "Before you start" if self.checked else "Before you start (checking …)"
        measured = None
        if self._measuring is not None:
            measured = {"wait": True}
        elif self._measured is not None and self._measured[0] == self._arguments():
            measured = self._measured[1]
        wide = self.size.width >= 100
        lines = preflight_lines(self.answer, self.outlook, measured, self._cards)
        text = Text()
        for label, sentence in lines if wide else brief(lines):
            text.append(f"{label:<7}", "bold")
            text.append(f"{display(sentence, 300)}\n", "")
        text.rstrip()
        pane.update(text)
        self.call_after_refresh(self._see_focused)

    def _see_focused(self) -> None:
        """Scroll to the field in front: the form may be lower by a line than it was."""
        if self.focused is not None:
            self.focused.scroll_visible(animate=False)

    def on_resize(self) -> None:
        self.set_class(self.size.height < LOW, "low")
        self._before()
