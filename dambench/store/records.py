"""The records of the log: with what a run is entered, what it says, and what somebody changes about it.

Applied in their order to an empty database, all records give it again.
"""

import secrets
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from dambench.core.config import RunConfig
from dambench.core.errors import BadInput, NotKept
from dambench.core.events import AnyEvent, DataCard, Process
from dambench.core.sanitize import display

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_id() -> str:
    """Six characters nobody mistakes for others; the first is a letter."""
    return secrets.choice(_ALPHABET[:23]) + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


Purpose = Literal["", "tuning"]
"""Why a run is made; `tuning`: to choose settings by, or of half of the training images, so that it is no evidence."""


class RunCreated(Struct, frozen=True, kw_only=True, tag_field="line", tag="created"):
    """A run is about to begin."""

    uid: str
    id: str
    name: str
    tags: list[str]
    at: str
    config: RunConfig
    card: DataCard
    process: Process
    recipe: str = ""
    overrides: dict[str, Any] = {}
    age: str = ""
    purpose: Purpose = ""


class EventLogged(Struct, frozen=True, kw_only=True, tag_field="line", tag="said"):
    """A word of a run."""

    uid: str
    attempt: int
    sequence: int
    at: str
    event: AnyEvent


def log_event(uid: str, attempt: int, sequence: int, event: AnyEvent) -> EventLogged:
    """Record an event of a run, now."""
    return EventLogged(uid=uid, attempt=attempt, sequence=sequence, at=now(), event=event)


Editable = Literal["deleted_at", "stop_asked", "name", "note", "tag", "untag"]
"""What is not the run's own to say: columns of its row, and the tags it is given and loses."""


class RunEdited(Struct, frozen=True, kw_only=True, tag_field="line", tag="edited"):
    """A change that somebody made to a run."""

    uid: str
    at: str
    what: Editable
    value: str | int


JsonObject = dict[str, Any]


class Identity(NamedTuple):
    """What tells a run from every other one: in every database, and for people."""

    uid: str
    id: str


class QueuedRun(Struct, frozen=True, kw_only=True):
    """What waits to be run: a row of `queue` as it was added."""

    uid: str
    id: str
    request: JsonObject
    """A run's, as in its TOML file; else {"words": […]}, and "of", the uid of the run that is evaluated."""
    command: Literal["run", "evaluate", "experts"] = "run"
    method: str = ""
    dataset: str = ""
    ipc: int | None = None
    network: str = ""
    protocol: str = ""
    seed: int | None = None
    settings: JsonObject = {}
    """What tells it from the others of its sweep, by axis."""
    tag: str = ""
    key: str = ""
    """The digests of its configuration and its data; empty: not known yet."""
    state: Literal["waiting", "paused"] = "waiting"
    priority: int = 0
    place: float = 0.0
    after: list[str] = []
    """The uids of others that must be finished before."""
    threads: int = 0
    device: str = ""
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    disk_bytes: int | None = None
    run: str = ""
    """The uid that its run has already; empty: its own."""
    reason: str = ""


class RunsQueued(Struct, frozen=True, kw_only=True, tag_field="line", tag="queued"):
    """Runs are to be made: all of them, or none is known of."""

    at: str
    dambench: str
    runs: list[QueuedRun]


class QueueTaken(Struct, frozen=True, kw_only=True, tag_field="line", tag="taken"):
    """A worker has taken a queued run, for the attempt-th time."""

    uid: str
    attempt: int
    at: str
    worker: str


class QueueEdited(Struct, frozen=True, kw_only=True, tag_field="line", tag="requeued"):
    """A change of a queued run."""

    uid: str
    attempt: int
    """How often it had been taken by then: what is said of an earlier attempt than the last one does not hold."""
    at: str
    values: dict[str, str | int | float | None]
    """By column of `queue`."""


class WorkerSeen(Struct, frozen=True, kw_only=True, tag_field="line", tag="worker"):
    """What is known of a worker, or has become known."""

    uid: str
    at: str
    values: dict[str, str | int]
    """By column of `workers`."""


QueueRecord = RunsQueued | QueueTaken | QueueEdited | WorkerSeen

LogRecord = RunCreated | EventLogged | RunEdited | RunsQueued | QueueTaken | QueueEdited | WorkerSeen

_decoder: msgspec.json.Decoder[LogRecord] = msgspec.json.Decoder(LogRecord)


def decoded(raw: bytes) -> LogRecord | None:
    """A record from a line of a log. None: this dambench cannot read it."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


class EditConflict(BadInput):
    """The text that was to be replaced is another one by now. Nothing was written."""

    def __init__(self, run: str, what: str, now: str):
        super().__init__(f"The {what} of {run} was changed meanwhile, to {display(now, 400)!r}: nothing was written.")
        self.now = now


LONGEST = 2000
"""Characters of a note, a name or a tag."""


class AttemptSuperseded(NotKept):
    """Another process has gone on with the run: this one may not speak for it any more."""

    def __init__(
        self, text: str = "Another process has gone on with this run: this one ends without a word of its own."
    ):
        super().__init__(text)
