"""The leaderboard as a text: one file per format in `formats`, or one of another package."""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

from dambench.core import files, reading, registry
from dambench.core.errors import BadInput
from dambench.report import sections
from dambench.store.leaderboard import Leaderboard

READER_SECONDS = 3.0
"""Seconds that the reader of a pipe may take to come."""


def render(format: str, board: Leaderboard, rows: Sequence[str], columns: Sequence[str], *, short: bool = False) -> str:
    """The leaderboard in that format, the axes as rows and columns."""
    with registry.guarded("formats", format):
        return registry.load("formats", format).render(board, rows, columns, short)


def format_of(format: str | None, output: Path | None, *, short: bool) -> str:
    """The format that was asked for, else that of the file's suffix, else markdown.

    Raises:
        BadInput: it is unknown, has no short form, or the file's suffix says another.
    """
    formats = registry.load_all("formats").usable
    by_suffix: dict[str, str] = {}
    # The usual one is named first, and a suffix of ours is never another's.
    for name in sorted(formats, key=lambda name: (name != "markdown", not registry.is_built_in("formats", name))):
        for suffix in formats[name].SUFFIXES:
            by_suffix.setdefault(suffix, name)
    of_file = None if output is None else by_suffix.get(output.suffix.lower())
    chosen = (of_file or "markdown") if format is None else registry.find("formats", format)
    suffixes = [suffix for suffix, name in by_suffix.items() if name == chosen or format is None]
    if output is not None and (format is None or of_file):
        files.check_suffix(output, suffixes, f"a report in {chosen}" if format else "a report")
    if short and not registry.load("formats", chosen).SHORT:
        able = ", ".join(name for name, plugin in formats.items() if plugin.SHORT)
        raise BadInput(f"--short is for {able}: the format {chosen} always has all numbers.")
    return chosen


def read_sections(text: str, format: str, *, short: bool) -> tuple[str, ...]:
    """The sections that are asked for, as `accuracy,cost` or `all`; empty: the usual ones.

    Raises:
        BadInput: one is unknown or there twice, or the format or --short does not go with them.
    """
    chosen = sections.read(text)
    if chosen and short:
        raise BadInput(
            f"--short is the tables of accuracy, and --sections asks for {', '.join(chosen)}: leave one out."
        )
    if len(chosen) > 1 and registry.load("formats", format).SINGLE:
        raise BadInput(
            f"--sections asks for {len(chosen)}, and {format} is one table: ask for one of {', '.join(chosen)}."
        )
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
