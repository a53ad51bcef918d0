"""docs/console.md: its tables of keys are those of the console. DAMBENCH_SNAPSHOTS=1 writes them anew."""

import os
import re
from pathlib import Path

from dambench.tui import keys, preferred
from dambench.tui.app import DambenchApp

PAGE = Path(__file__).parents[2] / "docs" / "console.md"
TABLE = re.compile(r"(<!-- keys of (\w+) -->\n)(?:\n*\|.*)*")


def _pressed(names: str) -> str:
    """Keys as people write them."""
    short = {"escape": "esc", "left": "←", "right": "→", "up": "↑", "down": "↓", "space": "space"}
    return " ".join(f"`{short.get(key) or keys.character(key) or key}`" for key in names.split(","))


def _table(place: str) -> str:
    rows = [row for row in preferred.key_rows() if row.name.partition(".")[0] == place]
    lines = [f"| {_pressed(row.keys)} | {row.meaning} | {row.name.partition('.')[2]} |" for row in rows]
    return "\n".join(["| key | | name |", "|---|---|---|", *lines])


def test_the_page_of_the_console_has_every_key_of_every_place() -> None:
    page = PAGE.read_text()
    places = {row.name.partition(".")[0] for row in preferred.key_rows()}
    assert sorted(place for _, place in TABLE.findall(page)) == sorted(places)
    anew = TABLE.sub(lambda found: f"{found[1]}\n{_table(found[2])}", page)
    if os.environ.get("DAMBENCH_SNAPSHOTS"):
        PAGE.write_text(anew)
    assert PAGE.read_text() == anew


def test_the_page_of_the_console_has_a_section_for_each_place() -> None:
    headings = re.findall("^## (.*)$", PAGE.read_text(), re.MULTILINE)
    screens = {**DambenchApp.PLACES, **DambenchApp.OPENED}.values()
    assert {screen.NAME for screen in screens} <= {heading.partition(" ")[0] for heading in headings}
