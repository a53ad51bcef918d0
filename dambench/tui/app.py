"""The console: places to look at runs.db from, and the keys between them.

It never imports torch and never runs anything itself: runs are processes of their own (`runner.processes`), which do
not notice when it is closed, killed or cut off. Whatever breaks here becomes a message.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, cast

from rich.console import RenderableType
from rich.text import Text
from textual.app import App, SystemCommand
from textual.binding import ActiveBinding, Binding, BindingType
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.events import Event, MouseEvent, Resize
from textual.filter import LineFilter
from textual.geometry import Size
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, TextArea

import dambench
from dambench.core.errors import BadInput
from dambench.core.notifying import in_words, signals
from dambench.core.sanitize import display
from dambench.runner import processes
from dambench.store import runs as stored
from dambench.store.rows import RunRow
from dambench.store.runs import Store
from dambench.tui import feed, hints, keys
from dambench.tui.console import ConsoleOptions, Undo
from dambench.tui.feed import Feed, File, QueryResult
from dambench.tui.main_screen import MainScreen
from dambench.tui.models.request import of_run
from dambench.tui.run_actions import undo_last
from dambench.tui.screens.compare import CompareScreen
from dambench.tui.screens.live import LiveScreen
from dambench.tui.screens.new_run import NewRunScreen
from dambench.tui.screens.queue import QueueScreen
from dambench.tui.screens.report import ReportScreen
from dambench.tui.screens.run import RunScreen
from dambench.tui.screens.runs import RunsScreen
from dambench.tui.screens.several import SeveralScreen
from dambench.tui.settings import Settings, folder
from dambench.tui.terminal import shutdown
from dambench.tui.terminal.ascii_filter import AsciiFilter, ColourFilter
from dambench.tui.terminal.clipboard import copy
from dambench.tui.terminal.colours import ANSI_ON_DARK, ANSI_ON_LIGHT
from dambench.tui.terminal.pixels import KittyImages
from dambench.tui.widgets.entry import Palette
from dambench.tui.widgets.images import Pictures
from dambench.tui.widgets.jump import Jump, targets
from dambench.tui.widgets.notices import NOT_NOW, Broken, Help, Leaving, TooSmall, too_small

ON_LIGHT = {"text-success": "#1b5e20", "text-warning": "#7a4300", "footer-key-foreground": "#242f38"}
"""Colours that Textual's light themes draw too faintly to be read."""

ANEW = 5.0
"""Seconds between two times that a place is read anew because of faults."""

IDLE = 3.0
"""Seconds between two notes that a key does nothing: a paste is many keys."""

OURS = Path(dambench.__file__).parent

CHANGING = {
    *("stop", "kill", "resume", "again", "queue", "tag", "note", "delete", "undo", "fill"),
    *("pause", "move", "first", "retry", "drop", "worker", "add", "export"),
}
"""Actions that a console which only looks refuses."""

NOT_SERVED = {"new", "write", "pager", "made"}
"""Actions that nobody at a browser can take."""

TEXTUALS = {binding.action for binding in Binding.make_bindings(Screen.BINDINGS)}
"""Actions of every screen, whatever it shows."""


class DambenchApp(App[None]):
    """The console.

    Args:
        path: the database, which may not be there yet.
        run: the id of a run to begin with.
    """

    TITLE = "dambench"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-narrow"),
        (100, "-middle"),
        (140, "-wide"),
    ]
    PLACES: ClassVar[dict[str, type[MainScreen]]] = {
        "runs": RunsScreen,
        "live": LiveScreen,
        "compare": CompareScreen,
        "queue": QueueScreen,
        "report": ReportScreen,
    }
    """By name, in the order of their number keys."""
    OPENED: ClassVar[dict[str, type[MainScreen]]] = {"run": RunScreen, "several": SeveralScreen}
    """Main screens that have no number: a place opens them."""

    BINDINGS: ClassVar[list[BindingType]] = keys.named(
        keys.EVERYWHERE,
        [
            # First of all: the next key is meant for the place that this one asks for.
            *(
                Binding(str(number), f"place({number})", show=False, priority=True, tooltip=f"Place {number}")
                for number in range(1, 6)
            ),
            Binding("question_mark", "help", "Help", key_display="?"),
            Binding("colon", "command_palette", "Palette", key_display=":", show=False),
            Binding(
                "semicolon,f6",
                "jump",
                "Jump",
                show=False,
                tooltip="A letter on every pane, field and row: it goes there",
            ),
            Binding("n", "new", "New"),
            Binding("y", "copy", "Copy", show=False),
            Binding("u", "undo", "Undo", show=False, tooltip="Take back the last deletion"),
            Binding("q", "leave", "Quit"),
            Binding("ctrl+q", "leave", "Quit, whatever is typed", show=False, priority=True),
        ],
    )

    def __init__(
        self, path: Path, run: str = "", options: ConsoleOptions | None = None, settings: Settings | None = None
    ) -> None:
        super().__init__()
        self.path = path
        self.options = options or ConsoleOptions()
        self.set_keymap(dict(self.options.keys))
        hints.prefer(keys.shown(dict(self.options.keys)))
        self._line_filters: list[LineFilter] = [
            *([AsciiFilter()] if self.options.ascii else []),
            *([] if self.options.colour else [ColourFilter()]),
        ]
        self.settings = settings or Settings()
        if self.options.cells:
            self.settings.set("compare", self.settings.get("compare", {}) | {"shows": list(self.options.cells)})
        if self.options.columns:
            self.settings.set("runs.columns", list(self.options.columns))
        self.feed = Feed(self, path)
        self.file: File | None = None
        """The file that is shown; None: there is no database."""
        self._file_checked = False
        """It was looked which one that is."""
        self._trouble = ""
        """The trouble with it; empty: none."""
        self._faults: set[object] = set()
        """Places of the code where something failed."""
        self._read_anew = -ANEW
        """When a place last was, because of a fault."""
        self.ansi_theme_dark, self.ansi_theme_light = ANSI_ON_DARK, ANSI_ON_LIGHT
        self._first_run = run
        self._idle_said = -IDLE
        self.pixels = self.options.pixels
        self.kitty: KittyImages | None = None
        if self.pixels is not None and self.pixels.kind == "kitty":
            if self.console.color_system == "truecolor":  # the number of an image is a colour
                self.kitty = KittyImages(self.pixels.cell, self._write)
            else:
                self.pixels = None
        self._undoable: list[Undo] = []
        """What was deleted from here, the last at the end."""
        self._server = os.getppid()
        """The process that serves this console to a browser, if one does."""
        if not self.options.colour:
            self.theme = "ansi-dark"
        elif (theme := self.options.theme or self.settings.get("theme", "textual-dark")) in self.available_themes:
            self.theme = theme

    # Places.

    def on_mount(self) -> None:
        for name, place in (self.PLACES | self.OPENED).items():
            self.install_screen(place(), name)
        self.feed.start()
        self.set_interval(feed.EVERY, self._tick)
        if not self.is_headless:
            shutdown.on_sigterm(self.exit)
            shutdown.on_hang_up()
        first = self.settings.get("place", "runs") if self.options.place == "last" else self.options.place
        if self._first_run:
            cast(LiveScreen, self.get_screen("live")).watch_run(self._first_run)
            first = "live"
        self.push_screen(first if first in self.PLACES else "runs")
        self._fit(self.size)
        self.theme_changed_signal.subscribe(self, lambda theme: self.settings.set("theme", theme.name))

    def on_unmount(self) -> None:
        self.feed.stop()
        if self.kitty is not None:
            self.kitty.close()

    # What is asked, of which file, and who hears the answer.

    def front(self) -> MainScreen | None:
        """The place that is seen, maybe under a box; None: something else is."""
        for screen in reversed(self.screen_stack if self.is_running else ()):
            if isinstance(screen, MainScreen):
                return screen if screen.is_mounted else None
            if not isinstance(screen, ModalScreen) or isinstance(screen, TooSmall):
                return None
        return None

    def _tick(self) -> None:
        """Ask for whatever is in front, if the answer before has been taken in."""
        if self.options.served and os.getppid() != self._server:
            self.exit()  # the server was killed, and nobody sees this
            return
        place = self.front()
        if place is not None:
            place.show_age()
            place.offer_keys()
        if self.feed.free:
            self._ask(now=place is not None and place.behind)

    def ask(self) -> None:
        """Ask at once for whatever is in front."""
        self._ask(now=True)

    def _ask(self, *, now: bool) -> None:
        place = self.front()
        # Where no place is seen, only which file is there.
        self.feed.ask(place, None if place is None else place.question(), self.file, now=now)

    def on_query_result(self, result: QueryResult) -> None:
        place = self.front()
        if result.fault is not None and self._is_new(result.fault):
            self._log_fault(result.fault)
        self._trouble = result.trouble
        self._tell_ended(result.ended)
        anew = result.file != self.file
        answered = not anew or result.trouble or result.file is None
        try:
            if anew:
                self._follow(result.file)
            if answered and place is not None and (place is result.requester or anew or result.trouble):
                place.receive(result)
                place.offer_keys()
        finally:
            self._file_checked = True
            self.feed.mark_applied(answered=bool(answered))
        if not answered:
            self.ask()

    def _follow(self, file: File | None) -> None:
        """Another file than the one that is shown lies under the database's name, or none does."""
        before, self.file = self.file, file
        if not self._file_checked:
            return
        for name in self.PLACES | self.OPENED:
            if (place := cast(MainScreen, self.get_screen(name))).is_mounted:
                place.forget()
        if isinstance(self.screen, NewRunScreen):
            self.screen.ask_again()
        name = display(str(self.path))
        if before is not None and file is None:
            self.say(f"The database {name!r} has gone: it was removed or renamed.", "warning")
        elif before is not None:
            self.say(f"The database {name!r} was replaced: the file that is there now is shown.", "warning")

    def check_file(self) -> None:
        """See that the file that is shown is the one under the database's name.

        Raises:
            BadInput: it is not.
        """
        name = display(str(self.path))
        if self._trouble:
            raise BadInput(self._trouble)
        try:
            there = feed.files_of(self.path)
        except OSError as error:
            raise BadInput(f"The database {name!r} cannot be reached: {error.strerror}.") from None
        if there is None:
            raise BadInput(f"There is no database {name!r}: nothing was done.")
        opened = self.feed.files
        if self._file_checked and (there.main != self.file or (opened is not None and there != opened)):
            raise BadInput(
                f"The database {name!r} is not the one that was shown: nothing was done. Look at what is shown now, "
                "and press the key again."
            )

    @contextmanager
    def database(self, *, write: bool = False) -> Iterator[Store]:
        """The database that is shown, and no other, to read or to change.

        Raises:
            BadInput: it is not there, or another one is in its place.
        """
        self.check_file()
        with closing(Store.open(self.path, write=write)) as store:
            self.check_file()
            yield store

    # Going about.

    def action_place(self, number: int) -> None:
        """Go to the place of that number."""
        names = list(self.PLACES)
        if number <= len(names) and not isinstance(self.screen, ModalScreen):
            self.go(names[number - 1])

    def go(self, name: str) -> None:
        """Go to a place; what was opened on top of the one before is closed."""
        if name in self.PLACES:
            self.settings.set("place", name)
        while not isinstance(self.screen, MainScreen):
            self.pop_screen()
        if self.screen is not self.get_screen(name):
            self.switch_screen(name)

    def open_run(self, run_id: str) -> None:
        """Show a run: as it goes on, or as a whole where it has ended."""
        row = None
        with suppress(BadInput), self.database() as store:  # it may be the first run of all, and not be seen yet
            row = store.with_id(run_id)
        if row is None or processes.state(row) in processes.ALIVE:
            self.watch_run(run_id)
        else:
            self.show_whole(run_id)

    def show_whole(self, run_id: str) -> None:
        """Show all of a run, whether it goes on or not."""
        cast(LiveScreen, self.get_screen("live")).watch_run(run_id)
        cast(RunScreen, self.get_screen("run")).show_run(run_id)
        self.go("run")

    def watch_run(self, run_id: str) -> None:
        """Show a run in Live."""
        cast(LiveScreen, self.get_screen("live")).watch_run(run_id)
        self.go("live")

    def marked(self) -> list[str]:
        """The uids of the runs that are marked in Runs."""
        place = cast(RunsScreen, self.get_screen("runs"))
        return list(place.table.marks.values()) if place.is_mounted else []

    def compare_runs(self, run_ids: list[str]) -> None:
        """Compare these."""
        cast(CompareScreen, self.get_screen("compare")).compare(run_ids)
        self.go("compare")

    def action_new(self) -> None:
        """Ask for a new run."""
        self.new_run()

    async def _check_bindings(self, key: str, priority: bool = False) -> bool:
        done = await super()._check_bindings(key, priority)
        if not (done or priority):
            self._say_idle(key)
        return done

    def _say_idle(self, key: str) -> None:
        """Say that a key does nothing in the place in front, unless it moves about or is typed."""
        now = time.monotonic()
        if (
            isinstance(self.screen, MainScreen)
            and not isinstance(self.focused, Input | TextArea)
            and (character := keys.character(key))
            and now - self._idle_said >= IDLE
        ):
            self._idle_said = now
            self.say(
                f"{character} does nothing in {self.screen.NAME}: {hints.hint('everywhere.help', '?')} lists the keys."
            )

    def action_help_quit(self) -> None:
        """Ctrl+C, which stops a program elsewhere."""
        stop = hints.hint("live.stop", "x") if isinstance(self.screen, LiveScreen) else hints.hint("runs.stop", "x")
        self.say(
            f"ctrl+c stops nothing here: {hints.hint('everywhere.quit', 'q')} quits, and runs go on without the "
            f"console; {stop} stops the run in front."
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In the form there is nothing new to ask for; where something is typed, a number is a character."""
        if action == "place" and self.screen_stack:
            return not isinstance(self.screen, ModalScreen) and not isinstance(self.focused, Input | TextArea)
        return not (action == "new" and isinstance(self.screen, NewRunScreen))

    def new_run(self, row: RunRow | None = None) -> None:
        """Open the form.

        Args:
            row: of a run, to ask for the same again; None: the form is as it was left.
        """
        if self.options.served:  # where files of this machine are named, looked for and read
            self.say("There are no new runs from a browser.", "warning")
            return
        if not self.is_screen_installed("new"):
            self.install_screen(NewRunScreen(), "new")
        form = self.get_screen("new", NewRunScreen)
        if row is not None:
            form.fill(of_run(row), str(row.id))
        self.push_screen("new")

    def screens_line(self, here: str) -> Text:
        """The first line of every place."""
        line = Text()
        for number, place in enumerate(self.PLACES.values(), start=1):
            label = f"{number} {place.NAME}"
            line.append(f"[{label}]" if here == place.NAME else f" {label} ", "bold" if here == place.NAME else "")
            line.append(" ")
        if here in {place.NAME for place in self.OPENED.values()}:
            line.append(f"[{here}]", "bold")
        return line

    def place_at(self, column: int) -> str | None:
        """The place whose name is at that column of the first line; None: none is."""
        end = 0
        for number, (name, place) in enumerate(self.PLACES.items(), start=1):
            end += len(f"[{number} {place.NAME}] ")
            if column < end:
                return name
        return None

    async def on_event(self, event: Event) -> None:
        if isinstance(event, MouseEvent) and not self.options.mouse:
            return  # not asked for: what a program before left switched on
        await super().on_event(event)

    def on_resize(self, event: Resize) -> None:
        self._fit(event.size)  # the app itself takes that in only after this

    def _fit(self, size: Size) -> None:
        """Say so while there is no room for the place in front."""
        if len(self.screen_stack) < 2:
            return  # the first place is still to come
        small = too_small(size)
        if small and not isinstance(self.screen, TooSmall):
            self.push_screen(TooSmall())
        elif not small and isinstance(self.screen, TooSmall):
            self.pop_screen()

    # What is told to the person.

    def say(self, text: str, severity: Any = "information") -> None:
        """A note that goes away by itself."""
        self.notify(display(text, 400), severity=severity, markup=False, timeout=6)

    def _tell_ended(self, ended: Sequence[tuple[str, str]]) -> None:
        """Say that runs have ended, as the user wants to be told.

        Args:
            ended: id and state of each.
        """
        kinds = self.options.notify
        if not (ended and kinds):
            return
        text = in_words(ended)
        if "toast" in kinds:
            self.say(text, "information" if all(state == "finished" for _, state in ended) else "warning")
        if heard := signals(kinds, text):
            self._write(heard)

    def _write(self, text: str) -> None:
        """Send the terminal what is not drawn, in its turn."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(text)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, renderable)
        if self.pixels is not None and self.kitty is None and screen is self.screen and not self._batch_count:
            for pane in screen.query(Pictures):
                if images := pane.sixels_after(renderable):
                    self._write(images)

    def refuses(self) -> bool:
        """Refuse, with a note, where nothing may be changed from here."""
        if self.options.readonly:
            self.say("This console only looks (--readonly).", "warning")
        return self.options.readonly

    def action_copy(self) -> None:
        """Copy what the place in front thinks is meant."""
        text = getattr(self.screen, "to_copy", str)()
        if not text:
            if isinstance(self.screen, MainScreen):
                self.check_file()
            waits = isinstance(self.screen, MainScreen) and not self.screen.answered
            self.say("The database is being read: nothing to copy yet." if waits else "There is nothing to copy here.")
            return
        path = copy(self, text)
        self.say("Copied, if the terminal allows it" + (f"; also in {path}" if path else ""))

    def deleted(self, undo: Undo) -> None:
        """Something was deleted from here, and can be brought back so."""
        self._undoable.append(undo)

    def action_undo(self) -> None:
        """Take back the last deletion."""
        place = self.front()
        if place is not None and not self.refuses():
            undo_last(place, self._undoable)

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(Palette(id="--command-palette"))

    def action_jump(self) -> None:
        """Show letters; the one that is pressed goes there."""
        if isinstance(self.screen, ModalScreen):
            return
        if found := targets(self.screen):
            self.push_screen(Jump(found), lambda target: target.go() if target is not None else None)
        else:
            self.say("There is nothing here to jump to.")

    def action_help(self) -> None:
        self.push_screen(Help(self._keys()))

    def _by_action(self, screen: Screen[Any]) -> Iterable[tuple[ActiveBinding, list[str]]]:
        """All that a key can do now, each with its keys, in the order of the place."""
        by_action: dict[str, tuple[ActiveBinding, list[str]]] = {}
        for key, active in screen.active_bindings.items():
            binding = active.binding
            # Editing of the line that has the focus is Textual's, and no news.
            ours = not isinstance(active.node, Input)
            if ours and (binding.description or binding.action.startswith("place")) and not binding.system:
                by_action.setdefault(binding.action, (active, []))[1].append(self.get_key_display(binding) or key)
        return by_action.values()

    def _keys(self) -> list[tuple[str, str, str]]:
        """Scope, keys and meaning of all bindings that hold now."""
        # What the place can do comes before how to move about in it, and that before what every screen can.
        bindings = sorted(
            self._by_action(self.screen),
            key=lambda binding: (binding[0].binding.action in TEXTUALS, not isinstance(binding[0].node, Screen)),
        )
        return [
            (self._scope(active), " ".join(dict.fromkeys(keys)), _meaning(active, keys[0])) for active, keys in bindings
        ]

    def _scope(self, active: ActiveBinding) -> str:
        """The part of the help that a key belongs to."""
        if not self.offers(active.binding.action, self.screen):
            return NOT_NOW
        return "everywhere" if _everywhere(active) else "here"

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: places, whatever has a key here, and the theme."""
        for name, place in self.PLACES.items():
            yield SystemCommand(f"Go to {place.NAME}", place.__doc__ or "", self._going(name))
        for active, pressed in self._by_action(screen):
            action = active.binding.action
            # How to move about in a table is for keys alone.
            if isinstance(active.node, App | Screen) and not action.startswith(("place", "command_palette")):
                if not self.offers(action, screen):
                    continue
                yield SystemCommand(_meaning(active, pressed[0]), f"Key {pressed[0]}", self._doing(active))
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)

    def offers(self, action: str, screen: Screen[Any]) -> bool:
        """Whether that would do something in this screen now: what is refused, or would do nothing, is not offered."""
        action = action.removeprefix("screen.").removeprefix("app.")
        if (action == "undo" and not self._undoable) or (action == "copy_text" and not screen.selections):
            return False
        if isinstance(screen, MainScreen) and action in screen.idle_actions():
            return False
        name, options = action.partition("(")[0], self.options
        return not (options.served and name in NOT_SERVED) and not (options.readonly and name in CHANGING)

    def _doing(self, active: ActiveBinding) -> Callable[[], Any]:
        return lambda: self.run_action(active.binding.action, active.node)

    def _going(self, name: str) -> Callable[[], None]:
        return lambda: self.go(name)

    def get_css_variables(self) -> dict[str, str]:
        return super().get_css_variables() | ({} if self.current_theme.dark else ON_LIGHT)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The filters of everything that is drawn."""
        return [*super().get_line_filters(), *self._line_filters]

    # The end.

    def action_leave(self) -> None:
        """Quit; where runs go on, say so first."""
        alive = self._alive()
        if alive and not isinstance(self.screen, Leaving):
            self.push_screen(Leaving(alive))
        else:
            self.exit()

    def _alive(self) -> list[str]:
        if not stored.exists(self.path):
            return []
        try:
            with closing(Store.open(self.path)) as store:  # whichever is there
                rows = store.unfinished()
        except Exception:  # whatever is wrong with the database, one may leave
            return []
        return [row.id for row in rows if processes.state(row) in ("waiting", "running")]

    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)
        except Exception as error:  # beyond this it would end the loop in which the app hears anything
            self._handle_exception(error)

    async def _dispatch_action(self, namespace: DOMNode, action_name: str, params: Any) -> bool:
        try:
            done = await super()._dispatch_action(namespace, action_name, params)
            if isinstance(self.screen, MainScreen):
                self.screen.offer_keys()
            return done
        except Exception as error:  # or that of the widget which the key was for
            self._failed(error, by_key=True)
            return True

    def _handle_exception(self, error: Exception) -> None:
        if self.is_running and self.screen_stack:
            self._failed(error)
        else:
            super()._handle_exception(error)

    def _failed(self, error: Exception, *, by_key: bool = False) -> None:
        """A fault of the console becomes a message: it is not worth losing the place one was at.

        What was known there may be what is wrong: it is read anew. What fails again and again is told once.

        Args:
            by_key: a key was pressed, which must not be answered with nothing.
        """
        if isinstance(error, BadInput):
            self.say(str(error), "error")
            return
        new, place, now = self._is_new(error), self.front(), time.monotonic()
        if new or by_key:
            self._log_fault(error)
        if place is not None and now - self._read_anew >= ANEW:
            self._read_anew = now
            with suppress(Exception):  # it is at fault already
                place.forget()
        if (new or by_key) and not isinstance(self.screen, Broken):
            self.push_screen(Broken(error, self.log_path))
        elif place is not None:
            place.fault = f"{type(error).__name__}: {error}"

    @property
    def log_path(self) -> Path:
        """The file with all faults of consoles."""
        return folder() / "console.log"

    def _is_new(self, error: Exception) -> bool:
        """Remember a fault; true: nothing failed so, at that line of ours, before."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if OURS in Path(frame.filename).parents] or frames
        where = (type(error), *((frame.filename, frame.lineno) for frame in ours[-1:]))
        repeated = where in self._faults
        self._faults.add(where)
        return not repeated

    def _log_fault(self, error: Exception) -> None:
        with suppress(OSError):
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with self.log_path.open("a") as file:
                file.write("".join(traceback.format_exception(error)) + "\n")


def _everywhere(active: ActiveBinding) -> bool:
    """A key does the same in every screen."""
    return isinstance(active.node, App) or active.binding.action in TEXTUALS


def _meaning(active: ActiveBinding, key: str) -> str:
    """The meaning of a key, in words."""
    return active.tooltip or active.binding.description or f"Place {key}"
