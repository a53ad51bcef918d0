"""Any key anywhere: whatever is pressed, and however often the terminal is resized, nothing in the console fails."""

import math
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from dambench.core.events import AnyEvent, Measured, Previewed, Real, Snapshot, Started, Stepped, real
from dambench.store.runs import Store
from dambench.tui.app import DambenchApp
from dambench.tui.terminal.pixels import PixelTerminal
from dambench.tui.widgets.notices import Broken
from tests import ledger
from tests.hostile import NAMES
from tests.tui.screen import console, drawn, picture, play

SIZES = [(80, 24), (60, 16), (160, 48), (20, 5), (100, 30), (140, 20), (61, 60), (250, 70)]
OTHERS = [
    "enter", "escape", "space", "tab", "shift+tab", "up", "down", "left", "right", "home", "end", "pageup", "pagedown",
    "backspace", "delete", "comma", "full_stop", "slash", "colon", "semicolon", "question_mark", "plus", "minus",
    "less_than_sign", "greater_than_sign", "left_square_bracket", "right_square_bracket", "exclamation_mark",
    "equals_sign", "underscore", "apostrophe", "asterisk", "at", "vertical_line", "ctrl+d", "ctrl+u", "ctrl+n",
    "ctrl+p", "ctrl+r", "ctrl+a", "ctrl+k", "ctrl+w", "ctrl+c", "ctrl+o", "f1", "f5",
]  # fmt: skip
KEYS = [*"abcdefghijklmnoprstuvwxyzABCDFGHIJKLMNOPQRSTUVWXYZ0123456789", *OTHERS]
"""All but `q`, which leaves, and `E`, which gives the terminal to another program."""

GOES = ["enter", "escape", "1", "2", "3", "4", "5", "tab", "space", "down", "right", "c", "T", "i", "L", "l", "plus"]
"""Keys that lead somewhere, pressed as often as all the others."""


def _curves(kind: int, draw: random.Random) -> list[dict[str, Real]]:
    """Losses of a run that are not what a chart expects."""
    match kind:
        case 0:
            return []
        case 1:
            return [{"matching": 0.5}]
        case 2:
            return [{"matching": 1e-30}] * 60
        case 3:
            return [{"matching": real(draw.choice([math.nan, math.inf, -math.inf, 1.0]))} for _ in range(90)]
        case 4:
            return [{"matching": "nan", "other": "inf"}] * 5
        case 5:
            return [{"matching": -float(at), "zero": 0.0} for at in range(120)]
        case 6:
            return [{"matching": draw.choice([1e308, -1e308, 5e-324, 0.0])} for _ in range(40)]
        case 7:
            return [{draw.choice(NAMES)[:200] or "matching": draw.random() for _ in range(3)} for _ in range(9)]
        case _:
            return [{"matching": 1 / (1 + at)} for at in range(draw.randrange(2, 500))]


def _odd(seed: int, kind: int, draw: random.Random) -> Iterator[AnyEvent]:
    """A run with odd curves, over odd iterations and seconds, with scores of more than one moment."""
    options: dict[str, object] = {"iterations": 100, "batch_real": draw.choice([4, 10**6])}
    config = ledger.config(draw.choice(["dm", "random"]), ipc=draw.choice([1, 10]), seed=seed, options=options)
    step, pace = draw.choice([1, 7, 10**6]), draw.choice([0.0, 1e-9, 0.3, 1e5])
    values = [draw.choice([0.0, 1.0, math.nan, draw.random()]) for _ in range(draw.choice([1, 3]))]
    for event in ledger.words(config, values):
        match event:
            case Stepped(iteration=1):
                for number, losses in enumerate(_curves(kind, draw)):
                    yield Stepped(iteration=number * step, losses=losses, seconds=number * pace)
            case Stepped():
                pass
            case Snapshot():
                yield Previewed(iteration=1, preview=picture(seed))
                yield msgspec.structs.replace(event, shape=[20, 1, 8, 8], preview=picture(seed + 1))
            case Measured():
                event = msgspec.structs.replace(
                    event, values={name: real(float(value)) for name, value in event.values.items()}
                )
                for iteration in draw.choice([(), (0,), (0, 1, 5, 10**7)]):
                    yield msgspec.structs.replace(event, iteration=iteration, final=False)
                yield event
            case _:
                yield event


def odd_runs(path: Path, seed: int, count: int) -> None:
    """A database of such runs: finished, failed, stopped, with names of no good end, one in the trash."""
    draw = random.Random(seed)
    with closing(Store.open(path, write=True)) as store:
        for number in range(count):
            story = list(_odd(number // 3, number % 10, draw))
            begun = story[0]
            assert isinstance(begun, Started)
            if draw.random() < 0.3:
                ends: list[AnyEvent] = [ledger.failed(), ledger.stopped()]
                story[-1] = draw.choice(ends)
            run = store.create(begun.config, ledger.CARD)
            for _ in store.record(run, story):
                pass
        with store.db.conn as db:
            db.execute("update runs set name = ?, note = ? where number % 4 = 1", [NAMES[3], NAMES[24]])
            db.execute("update runs set deleted_at = 'now' where number = 2")


def nothing_fails(
    path: Path,
    seed: int,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
    **look: Any,
) -> None:
    """Press and resize at random from a seed; no fault is shown, and nothing is written into the log of faults."""
    draw, done = random.Random(seed), list[str]()
    monkeypatch.setenv("XDG_STATE_HOME", str(path.parent / "state"))
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.chdir(path.parent)

    def no_child(*words: Any, **more: Any) -> Any:
        raise OSError("no other program is started here")

    monkeypatch.setattr(subprocess, "Popen", no_child)

    async def scene(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, DambenchApp)
        for _ in range(steps):
            kind = draw.random()
            if kind < 0.06:
                size = draw.choice(SIZES)
                done.append(f"resize {size}")
                await pilot.resize_terminal(*size)
            elif kind < 0.1:
                place = draw.choice([*DambenchApp.PLACES, "run"])
                done.append(f"go {place}")
                await pilot.press("escape", "escape", "escape")
                app.show_whole("") if place == "run" else app.go(place)
            else:
                keys = [draw.choice(KEYS if draw.random() < 0.5 else GOES) for _ in range(draw.randrange(1, 7))]
                done.append(" ".join(keys))
                await pilot.press(*keys)
            if draw.random() < 0.2:
                await pilot.pause(0.05)
            told = app.log_path.read_text() if app.log_path.exists() else ""
            assert not isinstance(app.screen, Broken), "\n".join([*done, drawn(app), told])
            assert not told, "\n".join([*done, told])
            if not app.is_running:
                return

    app = console(path, **look)
    play(app, scene, size=draw.choice(SIZES))


def test_whatever_is_pressed_over_odd_runs_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd_runs(tmp_path / "runs.db", 0, 10)
    nothing_fails(tmp_path / "runs.db", 0, 12, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_whatever_is_pressed_over_odd_runs_nothing_fails_for_long(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        odd_runs(tmp_path / "runs.db", seed, 40)
    else:
        shutil.copy(Path(__file__).parents[2] / "runs.db", tmp_path / "runs.db")
    pixels = [None, PixelTerminal("kitty"), PixelTerminal("sixel"), None][seed % 4]
    look = {"ascii": seed % 3 == 0, "colour": seed % 5 > 0, "pixels": pixels}
    nothing_fails(tmp_path / "runs.db", seed, 100, monkeypatch, **look)
