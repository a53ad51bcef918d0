"""Names for readers: of rows, columns, captions and labels in reports and figures, set once in a TOML file.

    label = "dd"                       # \\label{tab:dd-…} and \\label{fig:dd-…}

    [method]                           # also in the order in which figures show them
    random = "Random"
    dm = "DM"                          # "dm (iterations 50)" is then "DM (iterations 50)"

    [dataset]
    mnist = "MNIST"

    [network]
    convnet-d3-w128 = "ConvNet"

    [protocol]
    "dsa-dm" = "DSA"                   # shown as DSA#1a2b; "dsa-dm#1a2b" = "DSA" leaves the hash out

    [axis]
    ipc = "Images per class"

    [caption]
    accuracy = "Test accuracy. {caption}"
    figure-accuracy = "Accuracy over images per class."

Names are text: nothing in them is markup. What is computed does not depend on them, and files for programs (CSV, JSON)
have none.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import msgspec

from dambench.core import config
from dambench.core.errors import BadInput, unknown
from dambench.core.sanitize import display
from dambench.store.leaderboard import AXES, Leaderboard

FIGURES = ("accuracy", "curves", "sheet", "transfer")
"""The kinds of figures."""
LONGEST = 200
"""Characters of a name."""
LONGEST_CAPTION = 2000
PLACEHOLDERS = ("title", "caption")
"""What a caption may have in braces: the title and the caption that a table or a figure has by itself."""

UNSAID = ("in", "network", "protocol", "trained")
"""Words of titles that tell no tables apart."""


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of a file of names."""

    method: dict[str, str] = {}
    dataset: dict[str, str] = {}
    network: dict[str, str] = {}
    protocol: dict[str, str] = {}
    axis: dict[str, str] = {}
    caption: dict[str, str] = {}
    label: str = ""

    def of(self, axis: str, value: str) -> str:
        """The name of a value on an axis: its own, or that of the method or protocol it begins with, and the rest."""
        given: Mapping[str, str] = getattr(self, axis, {}) if axis in AXES else {}
        if value in given:
            return given[value]
        if axis in ("method", "protocol"):
            base = re.split(r"(?= \()|(?=#)", value, maxsplit=1)[0]
            if base in given:
                return given[base] + value[len(base) :]
        return value

    def place(self, axis: str, value: str) -> int:
        """The place of a value among the names of its axis; those without a name come last."""
        given = list(getattr(self, axis, {}))
        base = re.split(r"(?= \()|(?=#)", value, maxsplit=1)[0]
        return min((given.index(one) for one in (value, base) if one in given), default=len(given))


NONE = Names()
current: ContextVar[Names] = ContextVar("names", default=NONE)
"""The names that reports and figures are written with."""


def of(axis: str, value: str | int | None) -> str:
    """The current name of a value on an axis."""
    return current.get().of(axis, str(value))


def of_any(text: str) -> str:
    """The current name of what stands in a row or column, where its axis is not known."""
    if text.startswith("IPC ") and text[4:].isdigit():
        return shown("ipc", text[4:])
    given = (of(axis, text) for axis in ("dataset", "network", "protocol", "method"))
    return next((name for name in given if name != text), text)


def of_axis(axis: str) -> str:
    """The current name of an axis."""
    return current.get().axis.get(axis, axis)


def read(path: Path, sections: Iterable[str]) -> Names:
    """The names in a file.

    Args:
        sections: of reports, which may have captions.

    Raises:
        BadInput: it cannot be read, has an unknown key, or a name that none can be.
    """
    whose = f"{str(path)!r}"
    try:
        names = msgspec.convert(_known(config.toml_in(path), whose), Names)
    except msgspec.ValidationError as error:
        raise BadInput(f"In {whose}: {display(str(error), 200)}; a name is a text in quotes.") from None
    captions = (*sections, *(f"figure-{kind}" for kind in FIGURES))
    for kind, known in (("axis", AXES), ("caption", captions)):
        for key in getattr(names, kind):
            if key not in known:
                raise BadInput(f"In {whose}: {unknown(kind, key, known)}")
    for axis in (*AXES, "axis", "caption"):
        for key, name in getattr(names, axis, {}).items():
            most = LONGEST_CAPTION if axis == "caption" else LONGEST
            if not name.strip() or len(name) > most:
                raise BadInput(f"In {whose}: the name of {axis} {display(key, 60)!r} has from 1 to {most} characters.")
    for key, text in names.caption.items():
        for placeholder in re.findall(r"\{([^{}]*)\}", text):
            if placeholder not in PLACEHOLDERS:
                raise BadInput(f"In {whose}, caption {key}: {unknown('placeholder', placeholder, PLACEHOLDERS)}")
    if not re.fullmatch("[A-Za-z0-9:._-]{0,60}", names.label):
        raise BadInput(f"In {whose}: label {display(names.label, 60)!r} may have letters, digits, and : . _ - only.")
    return names


def _known(fields: Mapping[str, object], whose: str) -> Mapping[str, object]:
    for key in fields:
        if key not in Names.__struct_fields__:
            raise BadInput(f"In {whose}: {unknown('key', key, Names.__struct_fields__)}")
    return fields


def shown(axis: str, value: str | int) -> str:
    """A value as it stands in a row or column: of `ipc`, `IPC 10`."""
    return f"{current.get().axis.get(axis, 'IPC')} {value}" if axis == "ipc" else of(axis, value)


@contextmanager
def using(path: Path | None, sections: Iterable[str] = ()) -> Iterator[None]:
    """Write what is written in the block with the names of a file; None: with none.

    Raises:
        BadInput: as `read`.
    """
    token = current.set(NONE if path is None else read(path, sections))
    try:
        yield
    finally:
        current.reset(token)


def check(board: Leaderboard) -> None:
    """See that no two things of a leaderboard have one name.

    Raises:
        BadInput: two rows or columns would look like one.
    """
    for axis in AXES:
        shown: dict[str, str] = {}
        values = {
            str(getattr(score, axis))
            for table in board.tables
            for cell in table.cells.values()
            for score in cell.scores
        }
        for value in sorted(values):
            name = display(of(axis, value))
            if shown.setdefault(name, value) != value and display(value) != display(shown[name]):
                raise BadInput(
                    f"The names give {axis} {display(shown[name], 60)!r} and {display(value, 60)!r} one name, "
                    f"{display(name, 60)!r}: they would look like one."
                )


def caption(key: str, title: str, usual: str) -> str:
    """The caption of a section or figure; `usual` where the names have none.

    Args:
        key: the section, or `figure-` and the kind.
        title: what it shows, by itself.
    """
    text = current.get().caption.get(key)
    if text is None:
        return usual
    own = {"title": title, "caption": usual}
    return re.sub(r"\{(title|caption)\}", lambda match: own[match[1]], text)


def label(kind: str, *parts: str) -> str:
    """The \\label of a table (`tab`) or figure (`fig`), of letters, digits and -; empty: the names ask for none."""
    prefix = current.get().label
    if not prefix:
        return ""
    words = dict.fromkeys(re.findall("[a-z0-9]+", " ".join(parts).lower()))
    return "-".join([f"{kind}:{prefix}", *(word for word in words if word not in UNSAID)])
