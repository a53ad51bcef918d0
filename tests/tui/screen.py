"""The console in a test: keys, what is drawn, and pictures of it as text. DAMBENCH_SNAPSHOTS=1 makes those anew."""

import asyncio
import difflib
import io
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textual.app
import textual.pilot
from PIL import Image
from textual.app import App
from textual.events import Key
from textual.pilot import Pilot

from dambench.store import records
from dambench.tui import clock
from dambench.tui.app import DambenchApp
from dambench.tui.console import ConsoleOptions
from dambench.tui.settings import Settings

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SIZES = [(80, 24), (160, 48)]
TURNS = 5
"""Of the loop, without a message for anybody, after which a key has done what it does."""

PATIENCE = 20.0
"""Seconds after which something that has not come will not."""


def stop_clock(monkeypatch: pytest.MonkeyPatch, entered: str = "2026-11-01T09:00:00.000+00:00") -> None:
    """It is noon; what is entered into the database was entered at nine."""
    monkeypatch.setattr(clock, "now", lambda: NOON)
    monkeypatch.setattr(records, "now", lambda: entered)


def console(path: Path, run: str = "", **look: Any) -> DambenchApp:
    """With settings of its own, beside the database."""
    return DambenchApp(path, run, ConsoleOptions(**look), Settings(path.parent / "console.json"))


def play(
    app: DambenchApp, scene: Callable[[Pilot[None]], Coroutine[Any, Any, None]], size: tuple[int, int] = (80, 24)
) -> None:
    """Let a scene press keys and look."""

    async def on_stage() -> None:
        async with app.run_test(size=size) as pilot:
            await scene(pilot)

    async def taken_in(*seconds: float) -> None:
        quiet = 0
        while quiet < TURNS:
            await asyncio.sleep(0.001)
            pumps = [app, *app.screen_stack, *(app.screen.walk_children() if app.screen_stack else ())]
            quiet = quiet + 1 if all(pump._message_queue.empty() for pump in pumps) else 0

    # Textual waits until the process does next to nothing: up to a second for a key, beside a thread that reads.
    with pytest.MonkeyPatch.context() as patched:
        for module in (textual.app, textual.pilot):
            patched.setattr(module, "wait_for_idle", taken_in)
        asyncio.run(on_stage())


def picture(seed: int) -> bytes:
    """Ten images of each of two classes, as noisy as they get."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (2 * 9, 10 * 9), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def drawn(app: App[Any]) -> str:
    """What is on the screen, as text."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(s.text for s in strip).rstrip()[:width] for strip in lines[:height]).rstrip() + "\n"


def said(app: App[Any]) -> str:
    """The notes that are shown, and have not gone yet."""
    return "\n".join(note.message for note in app._notifications)


async def types(pilot: Pilot[None], text: str, *then: str) -> None:
    """Press the keys of a text, and then some others."""
    await pilot.press(*("space" if character == " " else character for character in text), *then)


def burst(pilot: Pilot[None], *keys: str) -> None:
    """Keys that come all at once, as from a paste or a slow line."""
    assert pilot.app._driver is not None
    for key in keys:
        pressed = Key(key, key if len(key) == 1 else None)
        pressed.set_sender(pilot.app)
        pilot.app._driver.send_message(pressed)


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"it has not come; on the screen is\n{drawn(pilot.app)}"
        await pilot.pause(0.01)


async def shows(pilot: Pilot[None], *texts: str) -> None:
    """Wait until all of these are on the screen."""
    await until(pilot, lambda: all(text in drawn(pilot.app) for text in texts))


async def snapshot(pilot: Pilot[None], name: str) -> None:
    """Compare what is on the screen with the picture of that name at that size."""
    app = pilot.app
    await shows(pilot, "q Quit")  # the key hints come last
    width, height = app.size
    path = Path(__file__).parent / "snapshots" / f"{name}-{width}x{height}.txt"
    if os.environ.get("DAMBENCH_SNAPSHOTS"):
        await pilot.pause(1.0)
        path.write_text(drawn(app))
    with suppress(AssertionError):  # what is said below is shorter: panes may be laid out once more meanwhile
        await until(pilot, lambda: drawn(app).splitlines() == path.read_text().splitlines())
    wanted, found = path.read_text().splitlines(), drawn(app).splitlines()
    assert found == wanted, "\n".join(difflib.unified_diff(wanted, found, "wanted", "found", lineterm="", n=0))
