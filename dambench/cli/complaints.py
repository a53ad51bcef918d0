"""What the program says about an error, and its exit code."""

import os
import sqlite3
from contextlib import suppress
from typing import NamedTuple

import typer

from dambench.cli.options import field_of
from dambench.cli.store import wrong_contents
from dambench.core.errors import BadInput, NotKept


class Complaint(NamedTuple):
    text: str
    code: int = 2
    field: str = ""
    """The option of the request that it is about; empty: none."""
    hint: str = ""
    """What to type next, for whoever typed a command."""


def complaint_about(error: Exception) -> Complaint | None:
    """The sentence about an error; None: it is a fault of ours."""
    match error:
        case BadInput():
            return Complaint(str(error), field=error.field)
        case typer.TyperException():
            parameter = getattr(error, "param", None)
            return Complaint(error.format_message(), field=field_of(parameter), hint="Try: dambench --help")
        case NotKept():
            return Complaint(str(error), 1)
        case MemoryError():
            return Complaint("There is not enough memory for what was asked.", 1)
        case sqlite3.Error():
            return Complaint(f"The database cannot be used: {error}.")
        case OSError():
            return _about_file(error)
    wrong = wrong_contents()  # a fault of ours, unless what was read is no dambench's work
    return Complaint(wrong) if wrong else None


def _about_file(error: OSError) -> Complaint:
    if error.filename:
        return Complaint(f"{error.filename!r} cannot be used: {error.strerror}.")
    if not _has_a_place():
        return Complaint("The folder in which this was started is no longer there: change into another.")
    # A reader that has gone (`dambench runs | head`) knows it.
    return Complaint("" if isinstance(error, BrokenPipeError) else f"The output cannot be written: {error}.", 1)


def _has_a_place() -> bool:
    with suppress(OSError):
        return bool(os.getcwd())
    return False
