"""`dambench shot`."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from dambench.cli.console import console_options
from dambench.cli.options import Db
from dambench.cli.store import open_store
from dambench.core import files
from dambench.core.errors import BadInput
from dambench.store import runs as stored

MOST_KEYS = 100
"""Keys that may be pressed for a picture of the console."""


def shot(
    context: typer.Context,
    place: Annotated[
        str, Argument(metavar="PLACE", help="Of the console: runs, live, compare, queue, report, run, several or new.")
    ],
    output: Annotated[Path, Option("--output", "-o", help="The file, .svg or .png.")],
    run_id: Annotated[str, Option("--run", metavar="ID", help="A run to show, or the beginning of its id.")] = "",
    size_: Annotated[str, Option("--size", metavar="COLUMNSxLINES")] = "160x48",
    keys: Annotated[str, Option(help="To press first, with commas: i,comma.")] = "",
    theme: Annotated[str, Option(help="Of the console [default: the one that was chosen in it].")] = "",
    ascii_: Annotated[bool, Option("--ascii", help="Nothing but ASCII.")] = False,
    colour: Annotated[bool, Option("--color/--no-color", help="In colours, or without.")] = True,
    db: Db = None,
) -> None:
    """A picture of the console, as SVG or PNG: for documents, and for reports of what looks wrong."""
    parts = size_.split("x")
    if len(parts) != 2 or not all(re.fullmatch("[0-9]{1,3}", part) and 1 <= int(part) <= 500 for part in parts):
        raise BadInput(f"--size {size_} is no size: 160x48 would be one, columns and lines.")
    files.check_suffix(output, [".svg", ".png"], "a picture of the console")
    columns, lines = map(int, parts)
    files.check_folder(output, "The picture")
    pressed = [key for key in keys.split(",") if key]
    if len(pressed) > MOST_KEYS:
        raise BadInput(f"--keys has {len(pressed)} keys: {MOST_KEYS} are the most that are pressed for a picture.")
    path = db or stored.default_path()
    if run_id:
        with open_store(path) as store:
            run_id = store.run(run_id).id
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    from dambench.tui import raster
    from dambench.tui.shot import shoot

    if not colour:
        os.environ["NO_COLOR"] = "1"
    options = console_options(context)
    options = replace(options, ascii=options.ascii or ascii_)
    picture = shoot(path, place, run_id, (columns, lines), pressed, options, theme)
    content = raster.png(picture) if output.suffix.lower() == ".png" else picture.encode()
    with files.writing("The picture", output.absolute().parent):
        files.write_whole(output, content)
    print(f"Written: {output}", file=sys.stderr)
