import io
import time

import msgspec
import pytest
from PIL import Image
from rich.console import Console

from dambench.cli import output
from dambench.cli.output import Watch, table
from dambench.cli.show import draw, machine
from dambench.core.events import Progressed, Sampled, Stepped, Warned
from dambench.core.narration import losses, summary
from dambench.store.usage import usage
from tests import ledger


def _console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)


def _said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_outside_a_terminal_losses_are_plain_lines_not_too_often() -> None:
    console = _console(terminal=False)
    now = 0.0
    with Watch(console, total=100, clock=lambda: now) as watch:
        for iteration in range(1, 101):
            now = 0.1 * iteration
            watch.show(Stepped(iteration=iteration, losses={"matching": 2.0}, seconds=0.1 * iteration))
    lines = _said(console).splitlines()
    assert lines[0] == "iteration 1/100  matching 2  10 it/s  10 s left"
    assert [line.split()[1] for line in lines] == ["1/100", "51/100", "100/100"]


def test_outside_a_terminal_a_line_says_how_far_a_phase_is_where_nothing_else_was_said_for_long() -> None:
    console = _console(terminal=False)
    now = 0.0
    with Watch(console, clock=lambda: now) as watch:
        for tenths in range(350):
            now = tenths / 10
            if tenths == 150:
                watch.show(Warned(message="The disk is nearly full."))
            watch.show(
                Progressed(phase="evaluate", done=tenths, total=350, note="convnet 1, 2/5", memory_bytes=300_000_000)
            )
    assert _said(console).splitlines() == [
        "evaluate 29 %  convnet 1, 2/5  300 MB",
        "note: The disk is nearly full.",
        "evaluate 71 %  convnet 1, 2/5  300 MB",
    ]


def test_a_silence_is_broken_after_ten_seconds_and_each_time_that_it_is_twice_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "SILENCE_LOOK", 0.001)
    console, now = _console(terminal=False), 0.0
    with Watch(console, clock=lambda: now) as watch:
        watch.show(Progressed(phase="evaluate", done=0, total=5, note="convnet 1/5"))
        for later, lines in ((9.0, 0), (11.0, 1), (15.0, 1), (23.0, 2)):
            now = later
            _wait_for(console, lines)
        watch.show(Progressed(phase="evaluate", done=1, total=5, note="convnet 1/5"))
        now = 34.0
        _wait_for(console, 3)
    assert _said(console).splitlines() == [
        "evaluate: still at it, nothing new for 11 s",
        "evaluate: still at it, nothing new for 23 s",
        "evaluate: still at it, nothing new for 11 s",
    ]


def _wait_for(console: Console, lines: int) -> None:
    """Some looks at least, ten seconds at most."""
    until = time.monotonic() + 10
    time.sleep(0.02)
    while _said(console).count("\n") != lines and time.monotonic() < until:
        time.sleep(0.005)


def test_steps_that_were_left_out_are_shown_where_there_are_any() -> None:
    def shown(skipped: float) -> str:
        return losses(Stepped(iteration=1, losses={"matching": 2.0, "skipped": skipped}, seconds=0.1))

    assert shown(0.0) == "matching 2"
    assert shown(3.0) == "matching 2  skipped 3"


def test_in_a_terminal_a_bar_shows_iteration_losses_rate_memory_and_eta() -> None:
    console = _console(terminal=True)
    with Watch(console, total=100) as watch:
        watch.show(Stepped(iteration=50, losses={"matching": 2.0}, seconds=5.0, memory_bytes=300_000_000))
        assert watch.progress is not None
        watch.progress.refresh()
    assert "50/100 matching 2  10 it/s  300 MB" in _said(console)


def test_phases_follow_each_other_on_one_bar() -> None:
    with Watch(_console(terminal=True), total=100) as watch:
        watch.show(Stepped(iteration=50, losses={"matching": 2.0}, seconds=5.0))
        watch.show(Progressed(phase="evaluate", done=3, total=10, note="convnet 1/5"))
        assert watch.progress is not None
        (task,) = watch.progress.tasks
        assert (task.description, task.completed, task.total) == ("evaluate", 3, 10)


@pytest.mark.parametrize("terminal", [True, False])
def test_markup_and_escape_codes_of_messages_are_text(terminal: bool) -> None:
    console = _console(terminal)
    with Watch(console) as watch:
        watch.show(Warned(message="[/] [bold]x[/bold] \x1b]52;c;aGk=\x07"))
        watch.show(Stepped(iteration=1, losses={"[red]\x1b[2J": 1.0}, seconds=1.0))
        if watch.progress is not None:
            watch.progress.refresh()
    said = _said(console)
    assert "[/] [bold]x[/bold] \ufffd]52;c;aGk=\ufffd" in said
    assert "\x1b]" not in said
    assert "\x1b[2J" not in said


def test_every_event_that_matters_has_a_line() -> None:
    lines = [summary(event) for event in ledger.words(ledger.config(), [0.5])]
    assert lines == [
        "dm of digits at IPC 1 on convnet-d1-w8, seed 0, cpu (a CPU, 2 threads)",
        "note: a note",
        None,
        None,
        None,
        None,
        "convnet-d1-w8 #0: accuracy 50.00 %, train 100.00 %, loss 0.5, 1 s",
        "finished: prepare 1 s, distil 1 s, evaluate 1 s",
    ]
    assert summary(ledger.failed()) == "failed: it broke"
    assert summary(ledger.stopped()) == "stopped by SIGTERM in phase distil, iteration 1"


def test_a_table_outside_a_terminal_keeps_each_row_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    table(["id", "text"], [["a", "word " * 60], ["b", None]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[-1].split() == ["b", "–"]


def test_a_terminal_that_cannot_draw_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = _console(terminal=True)
    with Watch(console, total=1) as watch:
        watch.show(Stepped(iteration=1, losses={"matching": 2.0}, seconds=0.1))
    assert _said(console).startswith("iteration 1/1  matching 2")


def test_a_watch_whose_screen_has_gone_stays_silent() -> None:
    class Gone(io.StringIO):
        calls = 0

        def write(self, text: str) -> int:
            Gone.calls += 1
            raise OSError("gone")

    with Watch(Console(file=Gone(), width=80)) as watch:
        for _ in range(3):
            watch.show(Warned(message="x"))
    assert watch.gone
    assert Gone.calls == 1


SAMPLE = Sampled(
    seconds=1.0,
    gpu_memory_used_bytes=41 * 10**9,
    gpu_memory_total_bytes=80 * 10**9,
    gpu_busy_percent=93,
    gpu_watts=310.0,
    gpu_celsius=71,
    gpu_neighbours=[],
    process_memory_bytes=612_000_000,
    process_cpu_percent=183.2,
)


def test_what_a_run_took_of_its_machine_is_a_line_for_the_gpu_and_one_for_the_host() -> None:
    used = [
        msgspec.structs.replace(SAMPLE, gpu_millijoules=10**9),
        msgspec.structs.replace(SAMPLE, seconds=9.0, gpu_millijoules=10**9 + 2_500_000),
    ]
    assert machine(msgspec.to_builtins(usage(used))) == [
        "GPU: peak 41.0 GB of the card's 80.0 GB in use, 93 % busy, 310 W, 71 °C, 2.5 kJ (card was not shared)",
        "host: process peak 612 MB, 183 % CPU",
    ]


def test_what_a_gpu_does_not_tell_is_not_available_rather_than_zero() -> None:
    instance = Sampled(seconds=1.0, gpu_memory_used_bytes=3 * 10**9, gpu_memory_total_bytes=10**10)
    assert machine(msgspec.to_builtins(usage([instance]))) == [
        "GPU: peak 3.0 GB of the card's 10.0 GB in use, utilisation n/a, power n/a, temperature n/a, energy n/a "
        "(not known whether the card was shared)"
    ]
    assert machine(msgspec.to_builtins(usage([]))) == []


def _png(rows: list[list[int]]) -> bytes:
    """A sheet of 2×2 images of one grey each: a row per class."""
    sheet = Image.new("L", (3 * len(rows[0]), 3 * len(rows)))
    for y, row in enumerate(rows):
        for x, grey in enumerate(row):
            sheet.paste(grey, (3 * x, 3 * y, 3 * x + 2, 3 * y + 2))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def test_a_preview_has_a_column_per_class_and_needs_no_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    draw(_png([[255, 0], [0, 255], [0, 0]]), "[6, 1, 2, 2]")
    lines = capsys.readouterr().out.splitlines()
    # Three classes of two images; 6 rows of pixels are 3 lines. A dark image is blank.
    assert [line.rstrip() for line in lines] == ["@@", "   ==", "   =="]


def test_a_preview_is_as_wide_as_the_terminal_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    draw(_png([[255]] * 30), "[30, 1, 2, 2]")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 20


def test_what_is_no_picture_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    draw(b"PNG", "[6, 1, 2, 2]")
    assert capsys.readouterr().out == ""
