"""Published figures as data: which number somebody printed, where it was read, and how it was measured.

Each dataset has a TOML file here, with a table for each published table that was read, and a line for each number of
it. `methods.toml` says once for each method how its authors test it; a table or a line that says otherwise goes over
that. `docs/published.md` describes the files, and how to add a number. Files of the same form in
DAMBENCH_HOME/published are read too.

A value is kept as it was printed (percent for accuracies, as papers have them), and a number without a source is
refused.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from dambench.core import files, reading
from dambench.core.errors import BadInput
from dambench.core.sanitize import display

HERE = Path(__file__).parent
METHODS = "methods.toml"
MOST_BYTES = 1_000_000
"""Largest size of one file."""

ACCURACY = "accuracy"

S = TypeVar("S", bound=Struct)


class Quantity(NamedTuple):
    """What a published figure is of."""

    unit: str
    least: float
    most: float


QUANTITIES = {
    ACCURACY: Quantity("%", 0, 100),
    "train accuracy": Quantity("%", 0, 100),
    "searched accuracy": Quantity("%", 0, 100),
    "rank correlation": Quantity("", -1, 1),
    "search time": Quantity("min", 0, math.inf),
    "training time": Quantity("s", 0, math.inf),
    "distillation time": Quantity("s", 0, math.inf),
    "time per iteration": Quantity("s", 0, math.inf),
    "memory": Quantity("GB", 0, math.inf),
}
"""`searched accuracy`: on the whole set, of the network that a search on the small set chose."""

Words = Annotated[str, Meta(max_length=400)]
Source = Annotated[str, Meta(min_length=3, max_length=400)]
Number = Annotated[int, Meta(ge=1, le=10_000)]
Labels = Literal["hard", "soft", ""]
Selection = Literal["last epoch", "best on the test set", ""]


class Conditions(Struct, kw_only=True, forbid_unknown_fields=True):
    """How a figure was measured. None: as the table, then the method's authors have it; empty: not stated."""

    conditions: Literal["the authors'", "not stated"] | None = None
    """Whether what is left open here is as the method's authors have it."""
    protocol: Words | None = None
    """The name of one of ours, or words."""
    network: Words | None = None
    """Trained on the set: the full name of one of ours, or words."""
    matched_on: Words | None = None
    labels: Labels | None = None
    selection: Selection | None = None
    preprocessing: Literal["mean/std", "zca", ""] | None = None
    sets: Number | None = None
    networks: Number | None = None
    """Trained on each set."""
    settings: dict[str, int | float | str] | None = None
    """Options of the method, by their names here."""
    rerun: bool | None = None
    """Whether others than the method's authors measured it."""
    variant: Words | None = None
    """What tells it from another figure of the same table."""
    note: Words | None = None


class MethodFacts(Conditions, kw_only=True, forbid_unknown_fields=True):
    """A method, and how its authors test it."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    paper: Words = ""
    """Its own; empty: it has none."""
    source: Words = ""
    """Where the conditions were read."""


class PublishedLine(Conditions, kw_only=True, forbid_unknown_fields=True):
    """A line of a file: one number."""

    method: Annotated[str, Meta(min_length=1, max_length=40)]
    ipc: Annotated[int, Meta(ge=1, le=100_000)] | Literal["whole"]
    value: float
    std: Annotated[float, Meta(ge=0)] | None = None


class PublishedTable(Conditions, kw_only=True, forbid_unknown_fields=True):
    """A published table, as far as it was read."""

    paper: Source | None = None
    table: Source | None = None
    where: Source | None = None
    """What was opened to read it, or who remembers it."""
    status: Literal["read", "recalled"] | None = None
    quantity: str = ACCURACY
    entries: list[dict[str, Any]] = []


class PublishedFile(Struct, kw_only=True, forbid_unknown_fields=True):
    """The contents of a file."""

    dataset: Annotated[str, Meta(min_length=1, max_length=60)] | None = None
    methods: dict[str, dict[str, Any]] = {}
    tables: list[dict[str, Any]] = []


class PublishedValue(Struct, frozen=True, kw_only=True):
    """One published number, with all that is known of it. Empty, None: not stated."""

    dataset: str
    method: str
    ipc: int | None
    """None: the whole set."""
    quantity: str
    value: float
    """As printed, in the unit of its quantity."""
    std: float | None
    paper: str
    """Whose table it is."""
    table: str
    where: str
    recalled: bool
    """Not read again at its source: to be checked before it is relied on."""
    protocol: str
    network: str
    matched_on: str
    labels: Labels
    selection: Selection
    preprocessing: str
    sets: int | None
    networks: int | None
    settings: dict[str, int | float | str]
    rerun: bool
    variant: str
    note: str
    name: str
    """The method's, as papers have it."""
    original: bool
    """Printed by the paper of the method itself."""

    @property
    def unit(self) -> str:
        return QUANTITIES[self.quantity].unit

    @property
    def key(self) -> tuple[Any, ...]:
        """What no two have in common."""
        return (
            *(self.dataset, self.method, self.ipc, self.quantity, self.network, self.variant),
            *(self.paper, self.table),
        )

    @property
    def n(self) -> str:
        """`5×20`: sets × networks; empty: not stated."""
        if self.sets is None and self.networks is None:
            return ""
        return f"{self.sets or '?'}×{self.networks or '?'}"

    @property
    def source(self) -> str:
        """The sentence about where it stands."""
        return f"{self.paper}, {self.table}; {'recalled, not checked' if self.recalled else self.where}"

    @property
    def text(self) -> str:
        """`48.9 ± 0.6`, with the digits that were printed."""
        digits = max(decimals(self.value), 0 if self.std is None else decimals(self.std), 1 if self.unit == "%" else 0)
        return f"{self.value:.{digits}f}" + ("" if self.std is None else f" ± {self.std:.{digits}f}")


def decimals(value: float) -> int:
    """Count the decimals that a number is written with."""
    whole, _, rest = repr(float(value)).partition(".")
    return 0 if rest == "0" or "e" in rest or not whole else len(rest)


def load(dataset: str | None = None) -> tuple[PublishedValue, ...]:
    """All published figures, or those on one dataset: those that come with the program, then the user's.

    Raises:
        BadInput: a file of the user's is not of the form, or has a number without a source.
    """
    values = _shipped(dataset)
    folder = files.home() / "published"
    own = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    if not own:
        return values
    more = _read_own(tuple((path, status.st_mtime_ns, status.st_size) for path in own for status in [path.stat()]))
    values += tuple(value for value in more if dataset in (None, value.dataset))
    _check_unique(values, str(folder))
    return values


def datasets() -> list[str]:
    """The datasets of which the program has published figures."""
    return sorted(path.stem for path in HERE.glob("*.toml") if path.name != METHODS)


@cache
def _shipped(dataset: str | None) -> tuple[PublishedValue, ...]:
    names = datasets() if dataset is None else [name for name in datasets() if name == dataset]
    return tuple(read([HERE / f"{name}.toml" for name in names], methods=dict(_methods())))


@lru_cache(maxsize=1)
def _read_own(stamped: tuple[tuple[Path, int, int], ...]) -> tuple[PublishedValue, ...]:
    """The user's figures, read again when a file has changed."""
    return tuple(read([path for path, *_ in stamped], methods=dict(_methods())))


@cache
def _methods() -> Mapping[str, MethodFacts]:
    file = _parsed(HERE / METHODS)
    return {name: _fields(MethodFacts, facts, f"{METHODS}, {name}") for name, facts in file.methods.items()}


def method_names() -> dict[str, str]:
    """The methods that come with the program, as papers call them."""
    return {name: facts.name for name, facts in _methods().items()}


def read(paths: Iterable[Path], methods: dict[str, MethodFacts]) -> list[PublishedValue]:
    """The figures of files.

    Args:
        methods: those that the files may name without describing them.

    Raises:
        BadInput: a file is not of the form, names an unknown method, has a value that cannot be one, a figure twice,
            or a number without a source.
    """
    values: list[PublishedValue] = []
    for path in paths:
        file = _parsed(path)
        known = methods | {
            name: _fields(MethodFacts, facts, f"{path.name}, {name}") for name, facts in file.methods.items()
        }
        for number, fields in enumerate(file.tables, 1):
            values += _table(path.name, number, fields, file, known)
        _check_unique(values, path.name)
    return values


def _parsed(path: Path) -> PublishedFile:
    try:
        fields = tomllib.loads(reading.content(path, MOST_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise BadInput(f"The published figures {str(path)!r} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The published figures {str(path)!r} are not valid TOML: {error}.") from None
    return _fields(PublishedFile, fields, path.name)


def _fields(kind: type[S], fields: Any, place: str) -> S:
    """The fields as a struct, or a sentence about the first that is wrong."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at ")
        key = display(at.strip("`").removeprefix("$").lstrip("."))
        fault = f"{f'{key}: ' if key else ''}{reason[:1].lower()}{reason[1:]}"
        raise BadInput(f"Published figures, {display(place)}: {fault}.") from None


def _table(
    file_name: str, number: int, fields: Any, file: PublishedFile, methods: Mapping[str, MethodFacts]
) -> list[PublishedValue]:
    place = f"{file_name}, table {number}"
    table = _fields(PublishedTable, fields, place)
    if table.quantity not in QUANTITIES:
        raise BadInput(
            f"Published figures, {place}: the quantity {display(table.quantity, 60)!r} is none of "
            f"{', '.join(QUANTITIES)}."
        )
    values = []
    for line, entry_fields in enumerate(table.entries, 1):
        entry = _fields(PublishedLine, entry_fields, f"{place}, line {line}")
        which = f"{display(entry.method, 60)} at {entry.ipc if entry.ipc == 'whole' else f'IPC {entry.ipc}'}"
        if missing := [name for name in ("paper", "table", "where", "status") if getattr(table, name) is None]:
            raise BadInput(
                f"Published figures, {place}: {which}, {entry.value:g}, is a number without a source: its table lacks "
                f"{', '.join(missing)}."
            )
        if file.dataset is None:
            raise BadInput(f"Published figures, {place}: {which} is of no dataset: the file lacks dataset = NAME.")
        if entry.method not in methods:
            raise BadInput(
                f"Published figures, {place}: the method {display(entry.method, 60)!r} is not described: add "
                f'[methods.{display(entry.method, 60)}] with name = "…".'
            )
        limits = QUANTITIES[table.quantity]
        if not limits.least <= entry.value <= limits.most or not math.isfinite(entry.value):
            raise BadInput(
                f"Published figures, {place}: {which} has {entry.value:g}, and its {table.quantity} lies from "
                f"{limits.least:g} to {limits.most:g}{f' {limits.unit}' if limits.unit else ''}."
            )
        if entry.std is not None and not math.isfinite(entry.std):
            raise BadInput(
                f"Published figures, {place}: {which} has std {entry.std:g}: a finite number, or leave it out."
            )
        values.append(_value(file.dataset, table, entry, methods[entry.method]))
    return values


def _value(dataset: str, table: PublishedTable, entry: PublishedLine, method: MethodFacts) -> PublishedValue:
    """A line with what its table and its method say besides."""
    above: tuple[Conditions, ...] = (entry, table)
    kept = next((each.conditions for each in above if each.conditions), "the authors'")
    if kept == "the authors'":
        above = (*above, method)

    def stated(name: str) -> Any:
        return next((value for each in above if (value := getattr(each, name)) is not None), None)

    assert table.paper is not None
    assert table.table is not None
    assert table.where is not None
    return PublishedValue(
        dataset=dataset,
        method=entry.method,
        ipc=None if entry.ipc == "whole" else entry.ipc,
        quantity=table.quantity,
        value=entry.value,
        std=entry.std,
        paper=table.paper,
        table=table.table,
        where=table.where,
        recalled=table.status == "recalled",
        **{
            name: stated(name) or ""
            for name in ("protocol", "network", "matched_on", "labels", "selection", "preprocessing")
        },
        sets=stated("sets"),
        networks=stated("networks"),
        settings=stated("settings") or {},
        rerun=bool(entry.rerun if entry.rerun is not None else table.rerun),
        variant=entry.variant or table.variant or "",
        note=" ".join(filter(None, (table.note, entry.note))),
        name=method.name,
        original=bool(method.paper) and table.paper == method.paper,
    )


def _check_unique(values: Iterable[PublishedValue], place: str) -> None:
    keys = set()
    for value in values:
        if value.key in keys:
            at = "the whole set" if value.ipc is None else f"IPC {value.ipc}"
            raise BadInput(
                f"Published figures, {display(place)}: {display(value.method, 60)} at {at} stands twice in "
                f"{display(value.paper)}, {display(value.table)}: say in `variant` what tells the two apart."
            )
        keys.add(value.key)
