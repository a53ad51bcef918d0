"""The real console in a real terminal that is closed, killed, stalled and resized, beside a run that goes on."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dambench.runner import processes
from dambench.store.runs import Store
from dambench.tui.screens.runs import RunsScreen
from dambench.tui.widgets.notices import Broken, Help, TooSmall
from tests import ledger
from tests.tui import screen
from tests.tui.speaker import ITERATIONS
from tests.tui.terminal import PATIENCE, Terminal

ROOT = Path(__file__).parents[2]
SMALL, LARGE = (80, 24), (160, 48)
STEP = re.compile(rf"(\d+)/{ITERATIONS}")


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.02)


class Going:
    """A run in a process of its own."""

    def __init__(self, path: Path, run: str):
        self.path, self.run = path, run

    def step(self) -> int:
        """How far it is, by the database; it has not ended."""
        with closing(Store.open(self.path)) as store:
            row = store.run(self.run)
        assert processes.state(row) == "running"
        return int(row.done)

    def goes_on(self) -> None:
        before = self.step()
        until(lambda: self.step() > before)


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Going]:
    path = tmp_path / "runs.db"
    words = [sys.executable, "-m", "tests.tui.speaker", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as speaker:
        assert speaker.stdout is not None
        try:
            yield Going(path, speaker.stdout.readline().strip())
        finally:
            speaker.kill()


def console(going: Going, size: tuple[int, int] = SMALL, **environ: str) -> Terminal:
    columns, lines = size
    return Terminal(["--db", str(going.path)], columns, lines, going.path.parent, **environ)


def step_on(screen: str) -> int:
    """The step that Live shows; 0: none."""
    return max(map(int, STEP.findall(screen)), default=0) if "[2 Live]" in screen else 0


def shown(terminal: Terminal, after: int = 0) -> int:
    """Wait until Live shows a later step than that; returns which."""
    end = time.monotonic() + PATIENCE
    while (step := step_on(terminal.screen())) <= after:
        assert time.monotonic() < end, f"no step after {after} on\n{terminal.screen()}"
        terminal.read(0.1)
    return step


def opened(terminal: Terminal) -> int:
    """Wait for the console and go to Live; returns the step that it shows."""
    terminal.wait("Runs")
    terminal.press("2")
    return shown(terminal)


def test_a_console_that_is_closed_cut_off_or_killed_leaves_the_run_alone_and_comes_back_to_it(going: Going) -> None:
    step = 0
    # In the second nobody tells it of its terminal's end.
    for environ, end in (({}, Terminal.hang_up), ({"NO_HANGUP": "1"}, Terminal.hang_up), ({}, Terminal.kill)):
        with console(going, SMALL, **environ) as terminal:
            # The one before was in Live, and so is the one after it.
            step = shown(terminal, step) if step else opened(terminal)
            end(terminal)
            terminal.ended()
        going.goes_on()
    with console(going) as terminal:
        assert shown(terminal, step) > step


@pytest.mark.parametrize("seconds", [0.5, pytest.param(5.0, marks=pytest.mark.slow)])
def test_a_terminal_that_stalls_is_answered_when_it_takes_again(seconds: float, going: Going) -> None:
    with console(going, LARGE) as terminal:
        opened(terminal)
        terminal.press("12" * 6)  # more pictures than a terminal and the console hold back
        time.sleep(seconds)
        going.goes_on()
        step = going.step()
        shown(terminal, step)
        terminal.press("?")
        terminal.wait("Keys")


def test_a_console_that_is_asked_twice_ends_though_its_terminal_stalls(going: Going) -> None:
    with console(going, LARGE) as terminal:
        opened(terminal)
        terminal.press("12" * 6)
        time.sleep(0.5)
        for _ in range(2):
            terminal.process.terminate()
            time.sleep(0.1)
        terminal.process.wait(PATIENCE)
    going.goes_on()


def test_a_terminal_may_become_tiny_and_large_again(going: Going) -> None:
    with console(going, LARGE) as terminal:
        opened(terminal)
        # As soon as the box is there, too: it is closed while the place below it is still being drawn.
        for seconds in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.02, 0.03, 0.3):
            terminal.resize(20, 5)
            terminal.wait("dambench needs")
            time.sleep(seconds)
            step = going.step()
            terminal.resize(*LARGE)
            terminal.wait("Synthetic set")  # a pane that only a large one has
        going.goes_on()
        shown(terminal, step)


@contextmanager
def client(tmux: list[str]) -> Iterator[None]:
    """Somebody who looks into tmux."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name != "TMUX"} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*tmux, "attach"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environ
    )
    os.close(theirs)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
def test_tmux_may_be_left_and_come_back_to(going: Going, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(going.path.parent))
    tmux = ["tmux", "-L", f"dambench-{os.getpid()}", "-f", os.devnull]

    def told(*words: str) -> str:
        return subprocess.run([*tmux, *words], capture_output=True, text=True, check=True).stdout

    def step() -> int:
        return step_on(told("capture-pane", "-p"))

    dambench = [sys.executable, "-m", "dambench", "--db", str(going.path)]
    told("new-session", "-d", "-x", "80", "-y", "24", *dambench)
    try:
        with client(tmux):
            until(lambda: told("list-clients"))
            until(lambda: "[1 Runs]" in told("capture-pane", "-p"))
            told("send-keys", "2")
            until(step)
            told("detach-client")
            until(lambda: not told("list-clients"))
        going.goes_on()
        before = going.step()
        with client(tmux):
            until(lambda: told("list-clients"))
            until(lambda: step() > before)
            told("send-keys", "?")
            until(lambda: "Keys" in told("capture-pane", "-p"))
    finally:
        told("kill-server")


# What the terminal is left as, and what becomes of faults.


MOUSE = re.compile(rb"\x1b\[\?(?:9|100[0-3]|100[56]|101[56])h")
"""How a terminal is asked to tell of a mouse."""


def test_quitting_says_that_the_run_goes_on_and_leaves_the_terminal_as_it_was(going: Going) -> None:
    with console(going) as terminal:
        opened(terminal)
        assert not terminal.left_as_it_was()
        terminal.press("q")
        terminal.wait("1 run goes on")
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.left_as_it_was()
        assert not MOUSE.findall(terminal.sent)  # it uses none
    going.goes_on()


def test_a_console_that_is_asked_to_end_leaves_the_terminal_as_it_was(going: Going) -> None:
    with console(going) as terminal:
        opened(terminal)
        terminal.process.terminate()
        terminal.ended()
        assert terminal.left_as_it_was()
    going.goes_on()


def test_a_size_that_the_shell_exported_does_not_hold_the_console_to_it(tmp_path: Path) -> None:
    with Terminal(["--db", str(tmp_path / "none.db")], *SMALL, tmp_path, COLUMNS="70", LINES="20") as terminal:
        terminal.wait("Runs")
        terminal.resize(20, 5)
        terminal.wait("dambench needs")


def test_a_key_right_after_that_of_a_place_is_for_that_place(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        ledger.add(store, ledger.config())
    with Terminal(["--db", str(path)], *SMALL, tmp_path) as terminal:
        terminal.wait("Runs")
        # Each in one write: they come together.
        terminal.press("3v")
        terminal.wait("What rows stand for")
        terminal.press("\x1b")
        until(lambda: terminal.read(0.05) == 0 and "What rows" not in terminal.screen())
        terminal.press("1/seed:32")  # where a filter is typed a number is a character
        terminal.wait("No run is meant by the filter 'seed:32'")
        assert "[1 Runs]" in terminal.screen()


def test_a_fault_of_the_console_is_a_message_that_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunsScreen, "action_sort", lambda self: 1 / 0)

    async def scene(pilot: Pilot[None]) -> None:
        await screen.shows(pilot, "There is no database")
        await pilot.press("s")
        await screen.shows(pilot, "The console has a fault", "ZeroDivisionError", "The runs go on")
        await pilot.press("y")
        await screen.until(pilot, lambda: "ZeroDivisionError" in pilot.app.clipboard)
        await pilot.press("escape")
        await screen.until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("s")
        await screen.until(pilot, lambda: isinstance(pilot.app.screen, Broken))
        assert pilot.app.screen.active_bindings["q"].binding.action == "app.leave"

    screen.play(screen.console(tmp_path / "none.db"), scene)
    log = (tmp_path / "state" / "dambench" / "console.log").read_text()
    assert log.count("ZeroDivisionError: ") == 2


def test_a_terminal_that_grew_under_a_box_shows_the_place_when_the_box_is_closed(tmp_path: Path) -> None:
    async def scene(pilot: Pilot[None]) -> None:
        await screen.shows(pilot, "dambench needs")
        await pilot.resize_terminal(80, 24)
        await screen.shows(pilot, "There is no database")
        await pilot.resize_terminal(20, 5)
        await screen.until(pilot, lambda: isinstance(pilot.app.screen, TooSmall))
        pilot.app.action_help()  # type: ignore[attr-defined]
        await screen.until(pilot, lambda: isinstance(pilot.app.screen, Help))
        await pilot.resize_terminal(80, 24)
        await pilot.press("escape")
        await screen.shows(pilot, "There is no database")
        assert isinstance(pilot.app.screen, RunsScreen)

    screen.play(screen.console(tmp_path / "none.db"), scene, (20, 5))


def test_where_there_is_no_run_yet_a_key_is_a_key_and_no_filter(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def scene(pilot: Pilot[None]) -> None:
        await screen.shows(pilot, "There is no database")
        await pilot.press("question_mark", "escape", "n")
        await screen.until(pilot, lambda: not isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("escape")
        with closing(Store.open(path, write=True)) as store:
            first, second = (ledger.add(store, ledger.config(seed=seed)) for seed in (0, 1))
        await screen.shows(pilot, "2 runs")  # the cursor is at either: it stays at the one that came first
        await pilot.press("g")
        await screen.shows(pilot, f" {second}  dm ·")
        await pilot.press("j")
        await screen.shows(pilot, f" {first}  dm ·")

    screen.play(screen.console(path), scene)
