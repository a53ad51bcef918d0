"""Shot: a picture of the console, drawn where there is no terminal."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from dambench.core.errors import BadInput, unknown
from dambench.core.sanitize import display
from dambench.store import runs as stored
from dambench.store.runs import Store
from dambench.tui.app import DambenchApp
from dambench.tui.console import ConsoleOptions
from dambench.tui.keys import is_key
from dambench.tui.models.run_reader import runs
from dambench.tui.screens.new_run import NewRunScreen
from dambench.tui.settings import Settings

FORM, RUN = "new", "run"

DRAW_SECONDS = 30.0
"""Seconds that the database, or the form's check, may take to answer."""


def shoot(
    path: Path,
    place: str,
    run: str = "",
    size: tuple[int, int] = (160, 48),
    keys: Sequence[str] = (),
    options: ConsoleOptions | None = None,
    theme: str = "",
) -> str:
    """Draw a screen of the console as SVG.

    Args:
        place: by its name in `DambenchApp.PLACES` or `OPENED`, or `new`, the form.
        run: the id of the run that is shown in Live and in Run; empty: the newest.
        size: columns and lines.
        keys: that are pressed first, as Textual calls them.
        options: as the console is started; it only looks in any case.
        theme: its name; empty: the one that the user of the console has chosen.

    Raises:
        BadInput: there is no such place or theme, or the database did not answer.
    """
    places = [*DambenchApp.PLACES, *DambenchApp.OPENED, FORM]
    if place not in places:
        raise BadInput(f"The console has no place {place!r}: it has {', '.join(places)}.")

    for key in keys:
        if not is_key(key):
            raise BadInput(f"--keys: {display(key, 40)!r} is no key: one character, or a name such as enter or comma.")

    async def on_stage(folder: str) -> str:
        # What the user of the console had chosen is not changed, and of it only the theme is taken over.
        settings = Settings(Path(folder) / "console.json")
        preferred = options.theme if options else ""
        settings.set("theme", theme or preferred or Settings().get("theme", "textual-dark"))
        app = DambenchApp(
            path, run, replace(options or ConsoleOptions(), readonly=True, theme="", place="last"), settings
        )
        if theme and theme not in app.available_themes:
            raise unknown("theme", theme, app.available_themes)
        async with app.run_test(size=size) as pilot:
            if place == RUN:
                app.show_whole(run or _newest(path))
            else:
                app.go("runs" if place == FORM else place)
            await answered(app, pilot)
            for key in ["n"] * (place == FORM) + list(keys):
                await pilot.press(key)
                if app._exit:
                    raise BadInput(f"--keys: {key!r} leaves the console: there is nothing to draw.")
                await answered(app, pilot)
            return app.export_screenshot(title="dambench")

    async def answered(app: DambenchApp, pilot: Pilot[None]) -> None:
        """Wait until what was asked for is on the screen."""
        before, end = app.feed.answers, time.monotonic() + DRAW_SECONDS
        while not (
            app.screen.checked
            if isinstance(app.screen, NewRunScreen)
            else app.feed.answers >= before + 2  # the first may have been asked before
        ):
            if time.monotonic() > end:
                raise BadInput(f"The database {str(path)!r} does not answer.")
            await pilot.pause(0.05)
        await pilot.pause(1.0)  # so that what is painted once a second is painted

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(on_stage(folder))


def _newest(path: Path) -> str:
    """The id of the run that was begun last.

    Raises:
        BadInput: there is none.
    """
    if stored.exists(path):
        with closing(Store.open(path)) as store:
            if order := runs(store):
                return order[0]
    raise BadInput(f"There is no run in {str(path)!r}: nothing to draw.")
