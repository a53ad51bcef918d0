"""The leaderboard as a text: one file per format, and all of them print the same numbers."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from dambench.core import files, reading
from dambench.core.errors import BadInput, named
from dambench.report.to_csv import to_csv
from dambench.report.to_html import to_html
from dambench.report.to_json import to_json
from dambench.report.to_latex import to_latex
from dambench.report.to_markdown import to_markdown

FORMATS: dict[str, Callable[..., str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
    "json": to_json,
}
"""Each takes a leaderboard and the axes of rows and columns; those for people also take `short`."""

READER_SECONDS = 3.0
"""Seconds that the reader of a pipe may take to come."""

FOR_PEOPLE = ("markdown", "latex", "html")
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".tex": "latex",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
    ".json": "json",
}


def format_of(format: str | None, output: Path | None, *, short: bool) -> str:
    """The format that was asked for, else that of the file's suffix, else markdown.

    Raises:
        BadInput: it is unknown, has no short form, or the file's suffix says another.
    """
    by_suffix = None if output is None else SUFFIXES.get(output.suffix.lower())
    chosen = (by_suffix or "markdown") if format is None else named("format", format, FORMATS)
    suffixes = [suffix for suffix, name in SUFFIXES.items() if name == chosen or format is None]
    if output is not None and (format is None or by_suffix):
        files.check_suffix(output, suffixes, f"a report in {chosen}" if format else "a report")
    if short and chosen not in FOR_PEOPLE:
        raise BadInput(f"--short is for {', '.join(FOR_PEOPLE)}: the format {chosen} always has all numbers.")
    return chosen


def write(output: Path, text: str) -> None:
    """Write a report to a file, whole, or to a pipe.

    Raises:
        BadInput: it cannot be written there.
    """
    target = Path(os.path.realpath(output))  # a link stays a link
    with files.writing("The report", target.parent):
        files.check_folder(target, "The report")
        if reading.is_no_file(target):
            _write_into(target, text.encode())
        else:
            files.write_whole(target, text.encode())


def _write_into(target: Path, content: bytes) -> None:
    """Into a pipe or a device. A pipe that nobody opens to read would keep us waiting for ever."""
    until = time.monotonic() + READER_SECONDS
    while True:
        try:
            handle = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not target.is_fifo():
                raise
            if time.monotonic() > until:
                raise OSError(errno.ENXIO, f"nobody has read from this pipe for {READER_SECONDS:.0f} s") from None
            time.sleep(0.02)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
